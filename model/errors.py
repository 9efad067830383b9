"""The errors of the model package, each with a stable code.

    ModelError
    ├── ImageRejected                the image cannot be classified
    │   ├── EmptyImage               empty_image
    │   ├── UnsupportedImage         unsupported_image
    │   ├── ImageTooManyBytes        image_too_many_bytes
    │   ├── ImageTooManyPixels       image_too_many_pixels
    │   ├── ImageTooLargeHere        image_too_large_here
    │   ├── UnsupportedPixelFormat   unsupported_pixel_format
    │   ├── CorruptImage             corrupt_image
    │   └── WrongTensorShape         tensor_shape
    ├── PredictionRefused            the model abstains, and MODEL__ABSTAIN is `refuse`
    │   ├── NotAnAerialImage         not_an_aerial_image
    │   └── LowConfidence            low_confidence
    ├── SetsUnavailable              prediction_sets_unavailable
    ├── ExplanationUnavailable       explanation_unavailable
    ├── UnknownLabel                 unknown_label
    ├── Overloaded                   overloaded
    ├── MemoryFull                   memory_full
    ├── DeadlineExceeded             deadline_exceeded
    ├── ModelReplaced                model_replaced
    ├── WorkerStuck                  worker_stuck
    ├── ModelTooLarge                model_too_large
    ├── CandidateNotComparable       candidate_not_comparable
    ├── ArtefactError                artefact_error
    │   ├── DigestMismatch           digest_mismatch
    │   └── signature errors         (model/signing/errors.py)
    ├── RegistryError                (model/registry/errors.py)
    ├── PreparationFailed            preparation_failed (model/backends/prepared/errors.py)
    ├── BackendURLError              backend_url
    ├── DatasetError                 dataset_error
    ├── KerasMissing                 keras_missing
    ├── EngineMissing                engine_missing
    ├── inference engine errors      (model/backends/oip/errors.py)
    ├── KerasProcessFailed           keras_process_failed
    ├── ExportRefused                export_refused
    ├── ImportRefused                the model file was not imported; nothing was written
    │   ├── UnsafeModelFile          unsafe_model_file
    │   ├── ImportFailed             import_failed
    │   ├── ImportLimitExceeded      import_limit_exceeded
    │   └── SandboxUnavailable       sandbox_unavailable
    └── ReplayImpossible             replay_impossible

Transports map these classes to their own statuses.
"""

from __future__ import annotations

from typing import ClassVar


class ModelError(Exception):
    """Base class of the package's errors. The message names the problem and what to do about it."""

    code: ClassVar[str]


class ImageRejected(ModelError):
    """The image cannot be classified. Sending it again does not help."""


class EmptyImage(ImageRejected):
    code = "empty_image"


class UnsupportedImage(ImageRejected):
    code = "unsupported_image"


class ImageTooManyBytes(ImageRejected):
    code = "image_too_many_bytes"


class ImageTooManyPixels(ImageRejected):
    code = "image_too_many_pixels"


class ImageTooLargeHere(ImageRejected):
    """Decoding takes more memory than one request may use on this machine."""

    code = "image_too_large_here"


class UnsupportedPixelFormat(ImageRejected):
    code = "unsupported_pixel_format"


class CorruptImage(ImageRejected):
    code = "corrupt_image"


class WrongTensorShape(ImageRejected):
    """The client sent decoded pixels, whose height or width differs from the model's input."""

    code = "tensor_shape"


class PredictionRefused(ModelError):
    """The model abstains, for the reason that `code` names (MODEL__ABSTAIN=refuse)."""


class NotAnAerialImage(PredictionRefused):
    code = "not_an_aerial_image"

    def __init__(self) -> None:
        super().__init__(
            "The image does not look like an aerial scene, so the model abstains. Send a vertical photograph of land "
            "from an aircraft or a satellite."
        )


class LowConfidence(PredictionRefused):
    code = "low_confidence"

    def __init__(self) -> None:
        super().__init__(
            "The model's confidence in the land use is too low, so it abstains. Send a sharper image, or a section "
            "that shows a single land use."
        )


class SetsUnavailable(ModelError):
    """The model has no conformal scores, which prediction sets require."""

    code = "prediction_sets_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "This model has no prediction sets, because its artefact has no conformal scores. Send the request without "
            "`coverage`, or export the model again with held-out images."
        )


class ExplanationUnavailable(ModelError):
    """The model's head, which explanations require, is unknown."""

    code = "explanation_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "This model cannot explain its predictions, because its artefact has no head.npz. Send the request without "
            "`explain`, or export the model again: only dense layers may follow the global average pooling."
        )


class UnknownLabel(ModelError):
    """The model has no class with the requested name."""

    code = "unknown_label"


class Overloaded(ModelError):
    """The queue rejects the request. `retry_after_s` is in whole seconds, at least 1."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MemoryFull(ModelError):
    """Other requests have reserved the memory.

    `retry_after_s` is about how long a request holds its own, at least 1 second.
    """

    code = "memory_full"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(ModelError):
    """The deadline passed before a prediction was made, or the job exceeded the time limit of all jobs."""

    code = "deadline_exceeded"

    def __init__(self) -> None:
        super().__init__(
            "The deadline passed before a prediction was made. Allow more time with X-Request-Timeout, send a smaller "
            "image, or try again later."
        )


class ModelReplaced(ModelError):
    """The model was replaced while a request with several images was in progress."""

    code = "model_replaced"
    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__("The model was replaced while the images were classified. Send the request again.")


class WorkerStuck(ModelError):
    """A worker thread will not finish its job. The process will be replaced, in about `retry_after_s` seconds."""

    code = "worker_stuck"
    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("A prediction is stuck, so the gateway is replacing this process. Try again later.")


class ModelTooLarge(ModelError):
    """The version in service and the next one do not fit into memory together."""

    code = "model_too_large"


class CandidateNotComparable(ModelError):
    """The candidate cannot serve every request that the production model serves, so no trial starts."""

    code = "candidate_not_comparable"


class ArtefactError(ModelError):
    """The artefact folder is incomplete or unreadable, or its contents cannot be used."""

    code = "artefact_error"


class DigestMismatch(ArtefactError):
    """A file's size or SHA-256 differs from the manifest."""

    code = "digest_mismatch"


class BackendURLError(ModelError):
    code = "backend_url"


class DatasetError(ModelError):
    code = "dataset_error"


class KerasMissing(ModelError):
    """Training, import, export and plots need the Keras environment."""

    code = "keras_missing"


class EngineMissing(ModelError):
    """The installed ONNX Runtime cannot compute on the engine that MODEL__URL names, or the machine lacks it."""

    code = "engine_missing"


class KerasProcessFailed(ModelError):
    """The child process failed. It has written the reason to stderr, unless a signal killed it."""

    code = "keras_process_failed"


class ExportRefused(ModelError):
    """The Keras model cannot be exported, or its ONNX graph does not reproduce its predictions."""

    code = "export_refused"


class ImportRefused(ModelError):
    """A model file was not imported, and nothing was written."""


class UnsafeModelFile(ImportRefused):
    """The file contains something that is not on the allow-list, or is damaged."""

    code = "unsafe_model_file"


class ImportFailed(ImportRefused):
    """The sandboxed conversion failed: Keras cannot load the model, it cannot be served, or the graph differs."""

    code = "import_failed"


class ImportLimitExceeded(ImportRefused):
    """The sandboxed conversion needed more memory, processor time, wall time or disk space than allowed."""

    code = "import_limit_exceeded"


class SandboxUnavailable(ImportRefused):
    """This machine cannot sandbox the conversion, so no file is opened."""

    code = "sandbox_unavailable"


class ReplayImpossible(ModelError):
    """A recorded prediction cannot be repeated with the available models."""

    code = "replay_impossible"
