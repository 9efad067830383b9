"""Why a prepared copy is not used, and why none could be built."""

from __future__ import annotations

from model.errors import ModelError


class PreparedCopyAbsent(Exception):
    """The model has no prepared copy for this machine yet, so its artefact is served."""


class PreparedCopyRejected(Exception):
    """The copy is damaged, not of this gateway, or where others can change it, so the artefact is served."""


class PreparationFailed(ModelError):
    """No prepared copy could be built."""

    code = "preparation_failed"
