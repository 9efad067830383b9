"""The errors of inference engines."""

from __future__ import annotations

from model.errors import ModelError


class EngineUnavailable(ModelError):
    """No inference engine of MODEL__URL can be reached, or all that can are not ready."""

    code = "engine_unavailable"
    retry_after_s = 1

    def __init__(self, message: str = "No inference engine is available. Try again later.") -> None:
        super().__init__(message)


class EngineFailed(ModelError):
    """An inference engine responded with an error, or with something else than probabilities. `detail` is for logs."""

    code = "engine_failed"

    def __init__(self, detail: str) -> None:
        super().__init__("The inference engine failed to process the image. Try again later.")
        self.detail = detail


class EngineMismatch(ModelError):
    """The engine's model has other inputs, outputs or versions than MODEL__URL and MODEL__MANIFEST say."""

    code = "engine_mismatch"
