"""Labels that callers send are evidence about a candidate."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import Settings
from api.settings.quality.canary import CanarySettings
from model.canary.evidence import Metric
from model.imaging.input_spec import InputSpec
from model.registry.files import FileRegistry
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.support.polling import wait_until


def test_a_label_counts_for_the_model_that_was_right(
    settings: Settings, tmp_path: Path, log_in: Callable[..., dict[str, str]], sample: bytes
) -> None:
    """A label of an image that both models classified counts once: here against the candidate, which was wrong."""
    models = FileRegistry(tmp_path / "models")
    for version, inverted in (("1.0", False), ("1.1", True)):
        (tmp_path / version).mkdir()
        models.add(write_tiny_artefact(tmp_path / version, InputSpec(16, 16), version=version, inverted=inverted))
    models.move_aliases("tiny", {"production": "1.0", "candidate": "1.1"}, who="olga", why="try it")
    served = {"url": "registry://tiny@production", "registry": f"file://{tmp_path}/models", "prepare": False}
    changes = {
        "model": settings.model.model_copy(update=served),
        # There must be no verdict, because a trial that has ended keeps no pairs.
        "canary": CanarySettings(share=1, limits=dict.fromkeys(Metric, (0.998, 0.999))),
    }
    registry, database = CollectorRegistry(), tmp_path / "gateway.db"

    def count(result: str) -> float:
        labels = {"metric": "accuracy", "result": result}
        return registry.get_sample_value("atalaya_canary_comparisons_total", labels) or 0

    with TestClient(create_app(settings.model_copy(update=changes), registry=registry)) as client:
        headers = log_in(client)

        def predict() -> dict[str, str]:
            response = client.post("/v1/predictions", files={"file": sample}, headers=headers)
            return {"id": response.json()["id"], "label": response.json()["label"]}

        wait_until(lambda: predict() and count_pairs(database))
        with closing(sqlite3.connect(database)) as connection:
            (prediction, production) = connection.execute("SELECT prediction, production FROM canary_pairs").fetchone()
        for _ in range(2):
            path = f"/v1/predictions/{prediction}/label"
            assert client.post(path, json={"label": production}, headers=headers).status_code == 201
    assert (count("worse"), count("same"), count("better")) == (1, 0, 0)


def count_pairs(database: Path) -> int:
    """The number of images that both models classified and that wait for a label."""
    with closing(sqlite3.connect(database)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM canary_pairs").fetchone()
    return int(count)
