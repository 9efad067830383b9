"""The errors of opening and building prepared copies."""

from __future__ import annotations

from model.errors import ModelError


class PreparedCopyAbsent(Exception):
    """The model has no prepared copy for this machine yet, so its artefact is served."""


class PreparedCopyRejected(Exception):
    """The copy is damaged, was not written by this gateway, or is accessible to other users: the artefact is served."""


class PreparationFailed(ModelError):
    """No prepared copy could be built."""

    code = "preparation_failed"
