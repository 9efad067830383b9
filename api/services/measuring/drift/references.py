"""Finds the reference of a model: in the manifest of its artefact, or in a file of `artifacts/references`."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from api.services.registry import list_artefact_folders
from api.settings import INSTALLATION, Settings, home_folder
from model.drift.detector import DriftDetector
from model.drift.files import find_reference
from model.drift.reference import Reference
from model.errors import ModelError
from model.registry.artefact import find_artefact, read_manifest

RETRY_S = 300.0
"""Seconds until the reference of a model is looked for again after it was missing or could not be read."""

log = structlog.get_logger("atalaya.drift")


class Detectors:
    """Caches the drift detector of each model that has made predictions. `clock` returns seconds."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._detectors: dict[tuple[str, str], DriftDetector] = {}
        self._retry_at: dict[tuple[str, str], float] = {}

    def find(self, model: str, digest: str) -> DriftDetector | None:
        """Return the detector of a model, given as NAME-vVERSION and SHA-256; None without a reference."""
        key = model, digest
        if key not in self._detectors and self._clock() >= self._retry_at.get(key, 0.0):
            reference = self._read_reference(model, digest)
            if reference is None:
                self._retry_at[key] = self._clock() + RETRY_S
            else:
                self._detectors[key] = DriftDetector(reference)
        return self._detectors.get(key)

    def _read_reference(self, model: str, digest: str) -> Reference | None:
        try:
            folder = find_artefact(list_artefact_folders(self._settings), "model.onnx", digest, model)
            reference = None if folder is None else read_manifest(folder).drift
            if reference is not None:
                return reference
            roots = (home_folder(), INSTALLATION)
            files = [path for root in roots for path in sorted((root / "artifacts" / "references").glob("*.json"))]
            reference = find_reference(files, digest)
        except (ModelError, OSError) as error:
            code = error.code if isinstance(error, ModelError) else type(error).__name__
            log.error("drift_reference_unreadable", model=model, code=code, reason=str(error))
            return None
        if reference is None:
            log.info("drift_not_tracked", model=model, reason="the model has no reference")
        return reference
