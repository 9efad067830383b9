"""Fixtures: images in every format, the shipped model, and services over a back end that the test blocks."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from tests.model.serving.gated import FakeClock, GatedBackend, MakeService, StageReports
from tests.support.paths import ROOT


@pytest.fixture(scope="session")
def samples() -> list[Path]:
    """The aerial photographs that ship with the project."""
    return sorted((ROOT / "samples").glob("*.jpg"))


@pytest.fixture(scope="session")
def artefact_folder() -> Path:
    """The model that ships with the project."""
    return ROOT / "artifacts" / "efficientnetb0-v1.1"


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Encode an image in a format, with Pillow's options."""

    def write(image: Image.Image, name: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, name, **options)
        return buffer.getvalue()

    return write


@pytest.fixture(scope="session")
def make_png() -> Callable[..., bytes]:
    """Build a PNG byte by byte: every row holds the samples `row`, `chunk` precedes the pixels."""

    def write(
        size: tuple[int, int],
        depth: int,
        colour: int,
        row: bytes,
        *,
        rows: int | None = None,
        chunk: tuple[bytes, bytes] | None = None,
    ) -> bytes:
        header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
        pixels = zlib.compress((b"\0" + row) * (size[1] if rows is None else rows))
        parts = [(b"IHDR", header), *([chunk] if chunk else []), (b"IDAT", pixels), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)

    return write


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture(scope="session")
def make_tiff() -> Callable[..., bytes]:
    """Build a little-endian TIFF with one strip, byte by byte; `tags`, {tag: (type, values)}, adds or replaces tags."""

    def write(
        size: tuple[int, int], bits: Sequence[int], data: bytes, tags: dict[int, tuple[int, Sequence[int]]]
    ) -> bytes:
        entries: dict[int, tuple[int, Sequence[int]]] = {
            256: (4, [size[0]]),
            257: (4, [size[1]]),
            258: (3, bits),
            259: (3, [1]),
            262: (3, [1 if len(bits) == 1 else 2]),
            273: (4, [0]),
            277: (3, [len(bits)]),
            278: (4, [size[1]]),
            279: (4, [len(data)]),
            **tags,
        }
        return _tiff(entries, data)

    return write


def _tiff(entries: dict[int, tuple[int, Sequence[int]]], data: bytes) -> bytes:
    """Write the directory, then the values that do not fit into it, then the pixels."""
    pointer = 273 if 324 not in entries else 324
    after = 8 + 2 + 12 * len(entries) + 4
    values = {
        tag: b"".join(value.to_bytes({3: 2, 4: 4, 17: 8}[kind], "little") for value in numbers)
        for tag, (kind, numbers) in entries.items()
    }
    start = after + sum(len(value) for value in values.values() if len(value) > 4)
    values[pointer] = struct.pack("<I", start)
    directory = spill = b""
    for tag, (kind, numbers) in sorted(entries.items()):
        value = values[tag]
        directory += struct.pack("<HHI", tag, kind, len(numbers))
        directory += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", after + len(spill))
        spill += value if len(value) > 4 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + spill + data


@pytest.fixture
def backend() -> Iterator[GatedBackend]:
    backend = GatedBackend()
    yield backend
    backend.gate.set()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def reports() -> StageReports:
    """The stages that services of `make_service` report: name, seconds and the reporting thread's name."""
    return []


@pytest.fixture
def make_service(backend: GatedBackend, reports: StageReports) -> Iterator[MakeService]:
    """Build services over `backend`, and close them after the test."""
    services: list[PredictionService] = []

    def make(
        workers: int = 1,
        slots: int = 2,
        seconds: float = 2.0,
        shedding_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> PredictionService:
        def on_stage(stage: str, seconds: float) -> None:
            reports.append((stage, seconds, threading.current_thread().name))

        limits = QueueLimits(slots, seconds, shedding_s)
        service = PredictionService(backend, workers=workers, limits=limits, on_stage=on_stage, clock=clock)
        services.append(service)
        return service

    yield make
    backend.gate.set()
    for service in services:
        service.close()
