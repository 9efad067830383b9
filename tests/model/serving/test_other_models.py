"""Models whose input and classes differ from the shipped model's."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.backends.open import open_warm
from model.backends.stub import StubBackend
from model.imaging.input_spec import InputSpec
from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from tests.model.backends.tiny_onnx import CLASSES, write_tiny_artefact
from tests.model.serving.gated import GatedBackend, MakeService, png, until

SMALL = InputSpec(width=192, height=160, resize_filter="bilinear")


class RecordingBackend(StubBackend):
    """A stub with another input and other classes that records the shapes of its input pixels."""

    def __init__(self) -> None:
        super().__init__(classes=("land", "water", "cloud"), input_spec=SMALL)
        self.shapes: list[tuple[int, ...]] = []

    def predict_pooled(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.shapes.append(pixels.shape)
        return super().predict_pooled(pixels)


@pytest.fixture
def tiny_service(tmp_path: Path) -> Iterator[PredictionService]:
    backend = open_warm(f"onnx://{write_tiny_artefact(tmp_path, SMALL)}", at_once=2)
    service = PredictionService(backend, workers=2, limits=QueueLimits(), on_stage=lambda *_: None)
    yield service
    service.close()
    backend.close()


@pytest.mark.parametrize(("colour", "label"), [("red", "red"), ("lime", "green"), ("navy", "blue")])
async def test_an_onnx_model_is_served_with_the_input_and_classes_of_its_manifest(
    tiny_service: PredictionService, colour: str, label: str
) -> None:
    """A graph of 160 rows, 192 columns and three classes gets images of that size, and its labels are returned."""
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), colour).save(buffer, "PNG")
    prediction = await tiny_service.predict(buffer.getvalue())
    assert prediction.label == label
    assert prediction.probabilities.shape == (3,)
    assert prediction.model.classes == CLASSES
    assert prediction.model.input_spec == SMALL
    assert (prediction.image.width, prediction.image.height) == (300, 200)


async def test_the_decoder_produces_the_input_of_the_back_end() -> None:
    """The service decodes images to the size that the back end declares."""
    backend = RecordingBackend()
    service = PredictionService(backend, workers=1, limits=QueueLimits(), on_stage=lambda *_: None)
    prediction = await service.predict(png(1))
    service.close()
    assert backend.shapes == [(1, 160, 192, 3)]
    assert prediction.label in {"land", "water", "cloud"}


async def test_replacing_the_back_end_does_not_affect_requests_in_progress(
    backend: GatedBackend, make_service: MakeService
) -> None:
    """A running and a queued request are decoded, classified and labelled by the back end they started with."""
    service = make_service(workers=1, slots=1)
    running = asyncio.create_task(service.predict(png(1)))
    await until(lambda: backend.in_progress == 1)
    queued = asyncio.create_task(service.predict(png(2)))
    await until(lambda: service.queue.waiting == 1)
    successor = RecordingBackend()
    previous = service.replace_backend(successor)
    assert not previous.done()
    backend.gate.set()
    for prediction in await asyncio.gather(running, queued):
        assert prediction.model == backend.info
        assert prediction.label == backend.info.classes[int(prediction.probabilities.argmax())]
    assert previous.result(timeout=60) is backend
    assert successor.shapes == []
    later = await service.predict(png(3))
    assert later.model == successor.info
    assert later.probabilities.shape == (3,)
