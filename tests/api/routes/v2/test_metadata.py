"""The health and metadata routes of the inference protocol."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from model.backends.stub import StubBackend
from tests.api.conftest import LogIn
from tests.support.polling import wait_until


def test_health_is_public(client: TestClient) -> None:
    """Anyone may ask whether the gateway is alive and ready."""
    assert client.get("/v2/health/live").json() == {"live": True}
    wait_until(lambda: client.get("/v2/health/ready").json() == {"ready": True})  # a check may take too long


def test_metadata_needs_the_scope_of_predictions(client: TestClient, log_in: LogIn) -> None:
    """Metadata requires the scope `predict` and no other."""
    paths = ("/v2", "/v2/models/stub", "/v2/models/stub/ready", "/v2/models/stub/versions/1.0")
    for path in paths:
        assert client.get(path).status_code == 401
        assert client.get(path, headers=log_in(client, scope="predict")).status_code == 200
        assert client.get(path, headers=log_in(client, scope="keys:write")).status_code == 403


def test_the_model_is_described(client: TestClient, bearer: dict[str, str]) -> None:
    """Inputs and outputs have names, datatypes and shapes, in which -1 is the number of images."""
    assert "binary_tensor_data" in client.get("/v2", headers=bearer).json()["extensions"]
    model = client.get("/v2/models/stub/versions/1.0", headers=bearer).json()
    assert (model["name"], model["versions"]) == ("stub", ["1.0"])
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 256, 256, 3]}]
    assert model["parameters"] == {"digest": StubBackend().info.digest}
    assert {output["name"]: output["shape"] for output in model["outputs"]}["probabilities"] == [-1, 21]
    assert client.get("/v2/models/stub/ready", headers=bearer).json() == {"name": "stub", "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/x", "/v2/models/x/ready", "/v2/models/stub/versions/9/ready", "/v2/x"])
def test_errors_have_the_protocol_s_form(client: TestClient, bearer: dict[str, str], path: str) -> None:
    """An unknown path, model or version gets 404 with the member `error`."""
    response = client.get(path, headers=bearer)
    assert response.status_code == 404
    assert response.json()["error"] == response.json()["detail"]
