"""What the model room refuses, as classes with a stable code.

    ModelError
    ├── ImageRejected                 the caller's bytes; nothing was predicted
    │   ├── EmptyImage               empty_image
    │   ├── UnsupportedImage         unsupported_image
    │   ├── ImageTooManyBytes        image_too_many_bytes
    │   ├── ImageTooManyPixels       image_too_many_pixels
    │   ├── ImageTooLargeHere        image_too_large_here
    │   ├── UnsupportedPixelFormat   unsupported_pixel_format
    │   └── CorruptImage             corrupt_image
    ├── Overloaded                   overloaded
    ├── MemoryFull                   memory_full
    ├── DeadlineExceeded             deadline_exceeded
    ├── ArtefactError                artefact_error
    │   └── DigestMismatch           digest_mismatch
    ├── BackendURLError              backend_url
    ├── DatasetError                 dataset_error
    ├── KerasMissing                 keras_missing
    ├── KerasProcessFailed           keras_process_failed
    ├── ExportRefused                export_refused
    └── ReplayImpossible             replay_impossible

Transports map these classes; nothing here knows an HTTP status.
"""

from __future__ import annotations

from typing import ClassVar


class ModelError(Exception):
    """Base of the room's errors; its message is one sentence that says what to do."""

    code: ClassVar[str]


class ImageRejected(ModelError):
    """The image cannot be used; another image may be."""


class EmptyImage(ImageRejected):
    code = "empty_image"


class UnsupportedImage(ImageRejected):
    code = "unsupported_image"


class ImageTooManyBytes(ImageRejected):
    code = "image_too_many_bytes"


class ImageTooManyPixels(ImageRejected):
    code = "image_too_many_pixels"


class ImageTooLargeHere(ImageRejected):
    """It could never be decoded in the memory of this machine; another may have more."""

    code = "image_too_large_here"


class UnsupportedPixelFormat(ImageRejected):
    code = "unsupported_pixel_format"


class CorruptImage(ImageRejected):
    code = "corrupt_image"


class Overloaded(ModelError):
    """The queue is full. `retry_after_s` is the estimated wait in whole seconds, at least 1."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MemoryFull(ModelError):
    """Other images take the memory. `retry_after_s` is about how long one takes, in whole seconds, at least 1."""

    code = "memory_full"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(ModelError):
    """The time ran out before the image could be looked at."""

    code = "deadline_exceeded"

    def __init__(self) -> None:
        super().__init__(
            "The time for the answer ran out. Ask for more by X-Request-Timeout, send less, or try again later."
        )


class ArtefactError(ModelError):
    """The artefact folder is incomplete or its manifest is unreadable."""

    code = "artefact_error"


class DigestMismatch(ArtefactError):
    """A file's SHA-256 is not the one its manifest names."""

    code = "digest_mismatch"


class BackendURLError(ModelError):
    code = "backend_url"


class DatasetError(ModelError):
    code = "dataset_error"


class KerasMissing(ModelError):
    """Training, import and export need the Keras environment."""

    code = "keras_missing"


class KerasProcessFailed(ModelError):
    """The child process ended badly; unless a signal ended it, its own line on stderr says why."""

    code = "keras_process_failed"


class ExportRefused(ModelError):
    """The ONNX graph does not reproduce the Keras model closely enough."""

    code = "export_refused"


class ReplayImpossible(ModelError):
    """A prediction cannot be made anew from what is here."""

    code = "replay_impossible"
