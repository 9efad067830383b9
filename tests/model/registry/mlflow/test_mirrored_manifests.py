"""Manifests on the MLflow server that the mirror rejects while it follows other aliases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.errors import ArtefactError
from model.registry.artefact import MANIFEST
from model.registry.mlflow.publishing import publish
from model.registry.mlflow.server import MlflowServer
from tests.model.registry.mlflow.conftest import MakeMirror
from tests.model.registry.mlflow.servers import RunningMlflow
from tests.model.registry.versions import write_artefact

_ENTRY = {"sha256": "0" * 64, "bytes": 3}


@pytest.mark.parametrize(
    "files",
    [
        {"..": _ENTRY},
        {"model\0onnx": _ENTRY},
        {"model\ud800": _ENTRY},
        {"m" * 300: _ENTRY},
        {"model.onnx": {**_ENTRY, "bytes": 10**30}},
    ],
    ids=["parent", "nul", "surrogate", "long", "large"],
)
def test_a_manifest_with_an_unusable_file_delays_no_other_alias(
    mlflow: RunningMlflow,
    server: MlflowServer,
    name: str,
    make_mirror: MakeMirror,
    tmp_path: Path,
    files: dict[str, Any],
) -> None:
    """A version whose manifest lists an unusable name or size is rejected, and the versions after it are copied."""
    for version, alias in (("1.0", "candidate"), ("1.1", "staging")):
        publish(server, write_artefact(tmp_path / version, version, name), None, alias)
    manifest = mlflow.find_file(f"{name}-v1.0", MANIFEST)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "files": files}))
    found = make_mirror().pull()
    assert found.moved == {"staging": "1.1"}
    refused = found.refused["candidate"]
    assert isinstance(refused, ArtefactError)
    assert "version 1 in MLflow" in str(refused)
