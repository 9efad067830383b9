"""Decode images in a process of their own, and measure processor time and peak memory of each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.support.linux.processes import peak_resident_bytes, resident_bytes

MakeImage = Callable[[int], bytes]
"""Builds the image with a number."""


@dataclass(frozen=True)
class Decoding:
    """How the decoding of one image ended, and what it used.

    `seconds` is processor time. `memory_share` is the peak of memory, the file included, divided by what a gateway
    reserves for it. `resident_bytes` is the memory of the process afterwards.
    """

    outcome: str
    pixels: int
    seconds: float
    memory_share: float
    resident_bytes: int


def decode_all(make: MakeImage, numbers: Sequence[int], warm_up: Iterable[bytes], results: Connection) -> None:
    """Send each image's number before decoding it, and its Decoding afterwards; None at the end.

    The files in `warm_up` are decoded first, so that one-time imports are not charged to an image.
    """
    from api.server.allocator import limit_memory_use

    limit_memory_use()
    for data in warm_up:
        decode(data)
    for number in numbers:
        data = make(number)
        results.send(number)
        results.send(decode(data))
    results.send(None)


def decode(data: bytes) -> Decoding:
    """Measure the header and decode the image, as a gateway does."""
    from model.errors import ImageRejected
    from model.imaging.decode import decode_image, measure_image
    from model.imaging.input_spec import DEFAULT_INPUT
    from model.imaging.memory import estimate_reading_bytes

    started, pixels, share, reserved = time.process_time(), 0, 0.0, estimate_reading_bytes(len(data))
    try:
        with _PeakMemory() as peak:
            needs = measure_image(data, DEFAULT_INPUT)
        pixels, share, reserved = needs.pixels, peak.share(data, reserved), needs.bytes
        with _PeakMemory() as peak:
            decoded = decode_image(data, DEFAULT_INPUT)
        outcome = "pixels" if decoded.pixels.shape == DEFAULT_INPUT.shape else "wrong shape"
    except ImageRejected as refused:
        outcome = refused.code
    except BaseException as error:
        outcome = f"escaped: {type(error).__name__}"
    share = max(share, peak.share(data, reserved))
    return Decoding(outcome, pixels, time.process_time() - started, share, resident_bytes(os.getpid()))


class _PeakMemory:
    """Measures the resident memory that the block needs on top of what the process had before it."""

    def __enter__(self) -> _PeakMemory:
        from api.server.allocator import return_free_memory

        return_free_memory()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self._before = resident_bytes(os.getpid())
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = peak_resident_bytes(os.getpid()) - self._before

    def share(self, data: bytes, reserved: int) -> float:
        return (self.bytes + len(data)) / reserved
