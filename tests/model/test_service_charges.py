"""Predictions that are paid for between the reading of the header and the decoding."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from PIL import Image

from model.backends.stub import StubBackend
from model.errors import CorruptImage, ImageRefused, Overloaded
from model.service import PredictionService


@dataclass
class Till:
    """Takes note of what is charged; its door can be closed, and it can refuse."""

    heard: list[str] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: Exception | None = None

    @asynccontextmanager
    async def charge(self, pixels: int) -> AsyncIterator[None]:
        self.heard.append(f"charged {pixels}")
        await self.open.wait()
        if self.refusal:
            raise self.refusal
        try:
            yield
        except BaseException as error:
            self.heard.append(f"failed {type(error).__name__}")
            raise
        self.heard.append("done")


@pytest.fixture
def stages() -> list[str]:
    return []


@pytest.fixture
def service(stages: list[str]) -> Iterator[PredictionService]:
    """A service with one worker and no queue."""
    service = PredictionService(StubBackend(), workers=1, queue_limit=0, on_stage=lambda stage, _: stages.append(stage))
    yield service
    service.close()


def png(width: int = 40, height: int = 30) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).save(buffer, "PNG")
    return buffer.getvalue()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (it changes in other threads)
            await asyncio.sleep(0)


async def test_the_charge_names_the_pixels_and_hears_of_success(service: PredictionService, stages: list[str]) -> None:
    """The charge is entered with the image's size and left after the answer; each stage is reported once."""
    till = Till()
    till.open.set()
    prediction = await service.predict(png(), till.charge)
    assert till.heard == ["charged 1200", "done"]
    assert stages == ["queue", "decode", "infer"]
    assert list(prediction.timing) == stages


async def test_who_pays_keeps_the_place(service: PredictionService) -> None:
    """While a charge is under way its place is taken; a second caller is turned away uncharged."""
    till, other = Till(), Till()
    paying = asyncio.create_task(service.predict(png(), till.charge))
    await until(lambda: bool(till.heard))
    with pytest.raises(Overloaded):
        await service.predict(png(), other.charge)
    assert other.heard == []
    till.open.set()
    await paying
    assert till.heard[-1] == "done"


async def test_a_refused_charge_frees_the_place(service: PredictionService, stages: list[str]) -> None:
    """What the charge raises reaches the caller, and no pixel was decoded."""
    till = Till(refusal=LookupError("no money"))
    till.open.set()
    for _ in range(3):
        with pytest.raises(LookupError):
            await service.predict(png(), till.charge)
    assert stages == []


async def test_who_leaves_while_paying_frees_the_place(service: PredictionService) -> None:
    """A caller who is cancelled during the charge leaves nothing behind."""
    till = Till()
    for _ in range(3):
        paying = asyncio.create_task(service.predict(png(), till.charge))
        heard = len(till.heard)
        await until(lambda heard=heard: len(till.heard) > heard)
        paying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await paying
    assert (await service.predict(png())).image.width == 40


async def test_a_broken_image_is_charged_and_the_charge_hears_of_it(service: PredictionService) -> None:
    """The header alone cannot tell: the charge sees the decoding fail."""
    till = Till()
    till.open.set()
    with pytest.raises(CorruptImage):
        await service.predict(png()[:-300], till.charge)
    assert till.heard == ["charged 1200", "failed CorruptImage"]


@pytest.mark.parametrize("data", [b"", b"text", png()[:20]])
async def test_without_a_header_nothing_is_charged(service: PredictionService, stages: list[str], data: bytes) -> None:
    """What is no image is refused before the charge; its stages are reported as ever."""
    till = Till()
    with pytest.raises(ImageRefused):
        await service.predict(data, till.charge)
    with pytest.raises(ImageRefused):
        await service.measure(data)
    assert till.heard == []
    assert stages == ["queue", "decode"] * 2


async def test_measuring_takes_a_place(service: PredictionService, stages: list[str]) -> None:
    """A measurement answers the pixels and decodes none; it is admitted like a prediction."""
    till = Till()
    assert await service.measure(png()) == 1200
    assert stages == []
    paying = asyncio.create_task(service.predict(png(), till.charge))
    await until(lambda: bool(till.heard))
    with pytest.raises(Overloaded):
        await service.measure(png())
    till.open.set()
    await paying
