"""Where the reference of a model is: in the manifest of its artefact, or in a file of `artifacts/references`."""

from __future__ import annotations

import structlog

from api.services.registry import list_artefact_folders
from api.settings import INSTALLATION, Settings, home_folder
from model.drift.detector import DriftDetector
from model.drift.files import find_reference
from model.drift.reference import Reference
from model.errors import ModelError
from model.registry.artefact import find_artefact, read_manifest

log = structlog.get_logger("atalaya.drift")


class Detectors:
    """The detectors of the models that have made predictions; each is looked up once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._found: dict[tuple[str, str], DriftDetector | None] = {}

    def find(self, model: str, digest: str) -> DriftDetector | None:
        """Return the detector of a model, given as NAME-vVERSION and SHA-256; None without a reference."""
        key = model, digest
        if key not in self._found:
            reference = self._read_reference(model, digest)
            self._found[key] = None if reference is None else DriftDetector(reference)
        return self._found[key]

    def _read_reference(self, model: str, digest: str) -> Reference | None:
        try:
            folder = find_artefact(list_artefact_folders(self._settings), "model.onnx", digest, model)
            reference = None if folder is None else read_manifest(folder).drift
            if reference is not None:
                return reference
            roots = (home_folder(), INSTALLATION)
            files = [path for root in roots for path in sorted((root / "artifacts" / "references").glob("*.json"))]
            reference = find_reference(files, digest)
        except ModelError as error:
            log.error("drift_reference_unreadable", model=model, code=error.code, reason=str(error))
            return None
        if reference is None:
            log.info("drift_not_tracked", model=model, reason="the model has no reference")
        return reference
