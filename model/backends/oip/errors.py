"""The errors of inference engines."""

from __future__ import annotations

from model.errors import ModelError


class EngineUnavailable(ModelError):
    """No inference engine of MODEL__URL is reachable and ready."""

    code = "engine_unavailable"
    retry_after_s = 1

    def __init__(self, message: str = "No inference engine is available. Try again later.") -> None:
        super().__init__(message)


class EngineFailed(ModelError):
    """An inference engine responded with an error or without valid outputs. `detail` is for logs."""

    code = "engine_failed"

    def __init__(self, detail: str) -> None:
        super().__init__("The inference engine failed to process the image. Try again later.")
        self.detail = detail


class EngineMismatch(ModelError):
    """The inputs, outputs or version of the engine's model differ from MODEL__URL or MODEL__MANIFEST."""

    code = "engine_mismatch"
