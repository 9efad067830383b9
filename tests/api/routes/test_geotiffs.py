"""What a response says about satellite data: bit depth, scaling, ground resolution and warnings."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from starlette.testclient import TestClient

from api.schemas.predictions import ImageResponse
from tests.support.images.geotiffs import LINEAR_UNITS, MODEL_TYPE, PROJECTED, describe_system, georeference

Bearer = dict[str, str]


def make_geotiff(side_m: float) -> bytes:
    """An image of 256 by 256 pixels of `side_m` metres, with the 12-bit samples of a sensor."""
    buffer = io.BytesIO()
    samples = np.random.default_rng(3).integers(0, 4_096, (256, 256, 3), np.uint16)
    system = describe_system({MODEL_TYPE: PROJECTED, LINEAR_UNITS: 9001})
    tifffile.imwrite(buffer, samples, photometric="rgb", metadata=None, extratags=[*georeference(side_m), *system])
    return buffer.getvalue()


@pytest.mark.parametrize(("side_m", "codes"), [(0.5, []), (10.0, ["ground_resolution"])])
def test_the_response_describes_satellite_data(
    client: TestClient, bearer: Bearer, side_m: float, codes: list[str]
) -> None:
    """Depth, scaling and ground resolution are in the response and in the ledger; a coarse image has a warning."""
    body = client.post("/v1/predictions", files={"file": make_geotiff(side_m)}, headers=bearer).json()
    image = body["image"]
    assert (image["bit_depth"], image["scaling"], image["ground_resolution_m"]) == (16, "12_to_8", side_m)
    assert [warning["code"] for warning in body["warnings"]] == codes
    assert all("10 m on the ground" in warning["detail"] for warning in body["warnings"])
    assert client.get(f"/v1/predictions/{body['id']}", headers=bearer).json()["image"] == image


def test_a_warning_changes_no_prediction(client: TestClient, bearer: Bearer) -> None:
    """Files that differ only in their georeference get the same prediction."""
    fine, coarse = (
        client.post("/v1/predictions", files={"file": make_geotiff(side)}, headers=bearer).json() for side in (0.3, 30)
    )
    assert fine["predictions"] == coarse["predictions"]
    assert (fine["abstained"], fine["label"]) == (coarse["abstained"], coarse["label"])


def test_images_in_entries_of_earlier_releases_are_read() -> None:
    """An entry without depth, scaling and resolution has null for them."""
    image = ImageResponse.model_validate({"sha256": "0", "format": "TIFF", "width": 1, "height": 1, "bytes": 9})
    assert (image.bit_depth, image.scaling, image.ground_resolution_m) == (None, None, None)
