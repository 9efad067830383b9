"""Where the gateway finds the drift references."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.services.measuring.drift import references
from api.services.measuring.drift.references import RETRY_S, Detectors
from api.settings import Settings
from model.drift.files import find_reference
from model.registry.artefact import read_manifest
from tests.support.paths import ARTEFACT, ROOT

REFERENCES = Path("artifacts", "references")
DIGEST = read_manifest(ARTEFACT).files["model.onnx"].sha256


@pytest.mark.parametrize("first", [None, "{"])
def test_a_missing_reference_is_searched_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str | None
) -> None:
    """The gateway looks for a missing or damaged reference again after RETRY_S, and keeps the one that it finds."""
    monkeypatch.setattr(references, "INSTALLATION", tmp_path)
    monkeypatch.setattr(references, "home_folder", lambda: tmp_path)
    file = tmp_path / REFERENCES / "land.json"
    file.parent.mkdir(parents=True)
    if first is not None:
        file.write_text(first)
    now = 0.0
    detectors = Detectors(settings, lambda: now)
    assert detectors.find("land-v1", DIGEST) is None
    (shipped,) = (path for path in (ROOT / REFERENCES).glob("*.json") if find_reference([path], DIGEST))
    file.write_bytes(shipped.read_bytes())
    now = RETRY_S - 1
    assert detectors.find("land-v1", DIGEST) is None
    now = RETRY_S
    found = detectors.find("land-v1", DIGEST)
    assert found is not None
    file.unlink()
    now *= 3
    assert detectors.find("land-v1", DIGEST) is found
