"""Admission of a caller after the image's header is read and before the image is decoded."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest
from PIL import Image

from model.backends.stub import StubBackend
from model.errors import CorruptImage, ImageRejected
from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from tests.model.serving.gated import until


@dataclass
class Admission:
    """Records the number of pixels of each image. Waits until it is `open`, then raises `error` if it is set."""

    pixels: list[int] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    async def admit(self, pixels: int) -> None:
        self.pixels.append(pixels)
        await self.open.wait()
        if self.error:
            raise self.error


@pytest.fixture
def stages() -> list[str]:
    return []


@pytest.fixture
def service(stages: list[str]) -> Iterator[PredictionService]:
    """A service with one worker and no queue slots."""
    service = PredictionService(
        StubBackend(), workers=1, limits=QueueLimits(0), on_stage=lambda stage, _: stages.append(stage)
    )
    yield service
    service.close()


def noise_png(width: int = 40, height: int = 30) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).save(buffer, "PNG")
    return buffer.getvalue()


async def test_admission_gets_the_number_of_pixels(service: PredictionService, stages: list[str]) -> None:
    """The callback gets the number of pixels of the image, and each stage is reported once."""
    admission = Admission()
    admission.open.set()
    prediction = await service.predict(noise_png(), admission.admit)
    assert admission.pixels == [1200]
    assert stages == ["queue", "decode", "infer"]
    assert list(prediction.timing) == stages


async def test_a_request_that_waits_for_admission_takes_no_worker(service: PredictionService) -> None:
    """While one caller is being admitted, the service counts as in use, and another caller is served."""
    admission = Admission()
    assert not service.in_use
    waiting = asyncio.create_task(service.predict(noise_png(), admission.admit))
    await until(lambda: bool(admission.pixels))
    assert (service.in_use, service.queue.busy) == (True, False)
    assert (await service.predict(noise_png())).image.width == 40
    admission.open.set()
    assert (await waiting).image.width == 40


async def test_an_error_of_the_admission_frees_the_slot(service: PredictionService, stages: list[str]) -> None:
    """An exception from the callback reaches the caller, and no pixel is decoded."""
    admission = Admission(error=LookupError("no money"))
    admission.open.set()
    for _ in range(3):
        with pytest.raises(LookupError):
            await service.predict(noise_png(), admission.admit)
    assert stages == []


async def test_cancellation_during_admission_frees_the_slot(service: PredictionService) -> None:
    """A request that is cancelled during its admission frees its slot."""
    for _ in range(3):
        admission = Admission()
        waiting = asyncio.create_task(service.predict(noise_png(), admission.admit))
        await until(partial(bool, admission.pixels))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not service.in_use
    assert (await service.predict(noise_png())).image.width == 40


async def test_a_corrupt_image_is_admitted_first(service: PredictionService) -> None:
    """The header does not show that the pixels are corrupt: the callback runs before decoding fails."""
    admission = Admission()
    admission.open.set()
    with pytest.raises(CorruptImage):
        await service.predict(noise_png()[:-300], admission.admit)
    assert admission.pixels == [1200]


@pytest.mark.parametrize("data", [b"", b"text", noise_png()[:20]])
async def test_without_a_header_no_image_is_admitted(
    service: PredictionService, stages: list[str], data: bytes
) -> None:
    """Bytes that are not an image are rejected before admission, and the time spent on them is reported."""
    admission = Admission()
    with pytest.raises(ImageRejected):
        await service.predict(data, admission.admit)
    with pytest.raises(ImageRejected):
        await service.measure(data)
    assert admission.pixels == []
    assert stages == ["decode"] * 2


async def test_measuring_decodes_nothing(service: PredictionService, stages: list[str]) -> None:
    """`measure` takes the number of pixels from the header, without decoding."""
    assert (await service.measure(noise_png())).pixels == 1200
    assert (await service.measure(noise_png(700, 600))).pixels == 420_000
    assert stages == []
