"""Calibration, abstention and prediction sets on a running gateway and on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.paths import FOREST, MODEL_URL

ABSTENTIONS = 'atalaya_abstentions_total{reason="low_confidence"}'
TEMPERATURE = 4.0
# The model abstains from almost every image, and 19 held-out images allow a coverage of 0.95.
CONFIDENCE: dict[str, Any] = {
    "calibration": {"temperature": TEMPERATURE},
    "abstention": {"low_confidence": {"min_confidence": 0.999}},
    "prediction_sets": {"scores": [0.95] * 19},
}


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped graph with a changed manifest."""
    folder, shipped = tmp_path_factory.mktemp("unsure"), Path(MODEL_URL.removeprefix("onnx://"))
    document = json.loads((shipped / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**document, **CONFIDENCE}))
    for name in ("model.onnx", "head.npz"):
        shutil.copyfile(shipped / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def unsure(artefact: Path) -> Iterator[Gateway]:
    with running_gateway(MODEL__URL=f"onnx://{artefact}") as gateway:
        yield gateway


def test_a_prediction_keeps_its_confidence_from_the_manifest_to_the_replay(unsure: Gateway) -> None:
    """Probabilities are calibrated and marked as abstained, sets follow the scores, and predictions can be replayed."""
    client, image, before = unsure.client(), FOREST.read_bytes(), unsure.metric(ABSTENTIONS)
    body = client.post("/v1/predictions?top_k=21&coverage=0.95", files={"file": image}).json()
    original = client.post("/predict-land-use", files={"file": image}).json()
    raw = np.array(original["prediction_probability"][0], np.float64)
    expected = raw ** (1 / TEMPERATURE) / (raw ** (1 / TEMPERATURE)).sum()
    np.testing.assert_allclose([row["probability"] for row in body["predictions"]], sorted(expected)[::-1], rtol=1e-4)
    assert (body["abstained"], body["reason"], body["label"]) == (True, "low_confidence", original["label"])
    assert body["prediction_set"] == [row for row in body["predictions"] if row["probability"] >= 0.05]
    assert body["prediction_set"]
    assert unsure.metric(ABSTENTIONS) == before + 2
    for prediction_id in (body["id"], original["id"]):
        replayed = unsure.run("ledger", "replay", prediction_id, str(FOREST))
        assert replayed.returncode == 0, replayed.stderr
    assert unsure.run("ledger", "verify").returncode == 0


def test_the_commands_mark_abstentions(unsure: Gateway, artefact: Path) -> None:
    """`classify` and `predict` print the same calibrated probability and model, and why the model abstains."""
    commands = (
        ("classify", "--url", unsure.base_url, "--token", unsure.token(), str(FOREST)),
        ("predict", "--model", str(artefact), str(FOREST)),
    )
    results = []
    for command in commands:
        table, (document,) = unsure.run(*command).stdout, json.loads(unsure.run(*command, "--json").stdout)
        assert "abstained" in table
        assert "low confidence" in table
        assert (document["abstained"], document["reason"]) == (True, "low_confidence")
        results.append((document["model"], document["probability"]))
    assert results[0] == results[1]
    assert document["model"] == "efficientnetb0-v1.1"
    assert document["probability"] < document["raw_probability"]
