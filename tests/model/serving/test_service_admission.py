"""Predictions that somebody admits between the reading of the header and the decoding."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from PIL import Image

from model.backends.stub import StubBackend
from model.errors import CorruptImage, ImageRejected
from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from tests.model.serving.gated import until


@dataclass
class Door:
    """Takes note of the sizes it hears of; it can be closed, and it can refuse."""

    heard: list[int] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: Exception | None = None

    async def admit(self, pixels: int) -> None:
        self.heard.append(pixels)
        await self.open.wait()
        if self.refusal:
            raise self.refusal


@pytest.fixture
def stages() -> list[str]:
    return []


@pytest.fixture
def service(stages: list[str]) -> Iterator[PredictionService]:
    """A service with one worker and no queue."""
    service = PredictionService(
        StubBackend(), workers=1, limits=QueueLimits(0), on_stage=lambda stage, _: stages.append(stage)
    )
    yield service
    service.close()


def png(width: int = 40, height: int = 30) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).save(buffer, "PNG")
    return buffer.getvalue()


async def test_the_door_hears_the_pixels(service: PredictionService, stages: list[str]) -> None:
    """The door is told the image's size; each stage is reported once."""
    door = Door()
    door.open.set()
    prediction = await service.predict(png(), door.admit)
    assert door.heard == [1200]
    assert stages == ["queue", "decode", "infer"]
    assert list(prediction.timing) == stages


async def test_who_waits_at_the_door_keeps_nobody_out(service: PredictionService) -> None:
    """While a caller is being admitted no worker is taken, but the service is in use: another is answered meanwhile."""
    door = Door()
    assert not service.in_use
    waiting = asyncio.create_task(service.predict(png(), door.admit))
    await until(lambda: bool(door.heard))
    assert (service.in_use, service.queue.busy) == (True, False)
    assert (await service.predict(png())).image.width == 40
    door.open.set()
    assert (await waiting).image.width == 40


async def test_a_refusal_frees_the_place(service: PredictionService, stages: list[str]) -> None:
    """What the door raises reaches the caller, and no pixel was decoded."""
    door = Door(refusal=LookupError("no money"))
    door.open.set()
    for _ in range(3):
        with pytest.raises(LookupError):
            await service.predict(png(), door.admit)
    assert stages == []


async def test_who_leaves_at_the_door_frees_the_place(service: PredictionService) -> None:
    """A caller who is cancelled while being admitted leaves nothing behind."""
    door = Door()
    for _ in range(3):
        waiting = asyncio.create_task(service.predict(png(), door.admit))
        heard = len(door.heard)
        await until(partial(_is_longer, door.heard, heard))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert (await service.predict(png())).image.width == 40


async def test_a_broken_image_is_admitted_first(service: PredictionService) -> None:
    """The header alone cannot tell: the door is passed before the decoding fails."""
    door = Door()
    door.open.set()
    with pytest.raises(CorruptImage):
        await service.predict(png()[:-300], door.admit)
    assert door.heard == [1200]


@pytest.mark.parametrize("data", [b"", b"text", png()[:20]])
async def test_without_a_header_the_door_stays_shut(service: PredictionService, stages: list[str], data: bytes) -> None:
    """What is no image is refused before the door; its time is reported as ever."""
    door = Door()
    with pytest.raises(ImageRejected):
        await service.predict(data, door.admit)
    with pytest.raises(ImageRejected):
        await service.measure(data)
    assert door.heard == []
    assert stages == ["decode"] * 2


async def test_measuring_decodes_nothing(service: PredictionService, stages: list[str]) -> None:
    """A measurement answers the pixels, also those of a body too large for the event loop."""
    assert (await service.measure(png())).pixels == 1200
    large = io.BytesIO()
    Image.effect_noise((700, 600), 50).save(large, "PNG")
    assert (await service.measure(large.getvalue())).pixels == 420_000
    assert stages == []
