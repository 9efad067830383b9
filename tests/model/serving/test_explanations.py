"""Explanations in the service: from the same run of the model, in a worker thread, within the memory budget."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.backends.base import Backend
from model.backends.open import open_backend
from model.errors import ExplanationUnavailable, UnknownLabel
from model.explanation.explanation import ExplanationRequest
from model.imaging.decode import measure_image
from model.imaging.input_spec import InputSpec
from model.serving.memory_budget import MemoryBudget
from model.serving.overload_policy import QueueLimits
from model.serving.prediction import predict_image
from model.serving.service import PredictionService
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.model.serving.gated import MakeService, StageReports, png
from tests.support.requirements import missing

SPEC = InputSpec(12, 8, "box")


@pytest.fixture
def explaining(tmp_path: Path) -> Iterator[Backend]:
    """A model whose map of a class is the intensity of the colour of that name in each pixel."""
    backend = open_backend(f"onnx://{write_tiny_artefact(tmp_path, SPEC, with_head=True)}")
    yield backend
    backend.close()


@pytest.fixture
def service(explaining: Backend, reports: StageReports) -> Iterator[PredictionService]:
    def on_stage(stage: str, seconds: float) -> None:
        reports.append((stage, seconds, threading.current_thread().name))

    service = PredictionService(explaining, workers=1, limits=QueueLimits(), on_stage=on_stage)
    yield service
    service.close()


def encode(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def half_red() -> bytes:
    """An image whose left half is red and whose right half is dark blue."""
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, :6, 0], pixels[:, 6:, 2] = 255, 60
    return encode(pixels)


async def test_best_class_is_explained(service: PredictionService) -> None:
    """The map highlights the pixels that support the most probable class."""
    prediction = await service.predict(half_red(), explanation=ExplanationRequest())
    assert prediction.explanation is not None
    assert prediction.explanation.label == prediction.label == "red"
    assert prediction.explanation.heat.tolist() == [[1] * 6 + [0] * 6] * 8
    assert prediction.explanation.overlay is None


async def test_another_class_can_be_explained(service: PredictionService) -> None:
    """A named class gets its own map; the prediction stays that of the best class."""
    prediction = await service.predict(half_red(), explanation=ExplanationRequest("blue", overlay=True))
    assert prediction.label == "red"
    assert prediction.explanation is not None
    assert prediction.explanation.label == "blue"
    assert prediction.explanation.heat.tolist() == [[0] * 6 + [1] * 6] * 8
    with Image.open(io.BytesIO(prediction.explanation.overlay or b"")) as overlay:
        assert overlay.size == (12, 8)


async def test_explanation_changes_no_probability(service: PredictionService) -> None:
    """The probabilities are bit-identical with and without an explanation, which only adds its own stage."""
    plain = await service.predict(half_red())
    explained = await service.predict(half_red(), explanation=ExplanationRequest())
    assert plain.explanation is None
    assert np.array_equal(plain.probabilities, explained.probabilities)
    assert set(explained.timing) - set(plain.timing) == {"explain"}


def test_explanation_changes_no_probability_of_the_shipped_model(artefact_folder: Path, samples: list[Path]) -> None:
    """The shipped graph returns bit-identical probabilities when the feature maps are fetched too."""
    backend = open_backend(f"onnx://{artefact_folder}")
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB").resize((256, 256))) for path in samples[:1]])
    assert np.array_equal(backend.predict(pixels), backend.predict_with_features(pixels)[0])
    backend.close()


async def test_explanations_are_computed_in_a_worker_thread(service: PredictionService, reports: StageReports) -> None:
    """An explanation is computed in a worker thread, not on the event loop."""
    await service.predict(half_red(), explanation=ExplanationRequest(overlay=True))
    (thread,) = [thread for stage, _, thread in reports if stage == "explain"]
    assert thread.startswith("predict_")


async def test_memory_of_an_explanation_is_reserved(explaining: Backend) -> None:
    """While an image is explained, more of the budget is reserved than for a prediction alone, and then it is freed."""
    service = PredictionService(explaining, workers=1, limits=QueueLimits(), on_stage=lambda *_: None)
    reserved: list[int] = []
    budget = MemoryBudget(100_000_000)
    for explanation in (None, ExplanationRequest(), ExplanationRequest(overlay=True)):
        async with budget.reserve(1_000) as reservation:
            await service.predict(half_red(), explanation=explanation, reservation=reservation)
            reserved.append(reservation.amount)
    service.close()
    plain, explained, drawn = reserved
    assert plain == measure_image(half_red(), SPEC).bytes
    assert plain < explained < drawn
    assert budget.reserved == 0


async def test_unknown_classes_are_rejected(service: PredictionService) -> None:
    """A class that the model does not have raises an error that lists the model's classes."""
    with pytest.raises(UnknownLabel, match=r"no class 'forest'.*red, green, blue"):
        service.check_explanation(ExplanationRequest("forest"))
    with pytest.raises(UnknownLabel):
        await service.predict(half_red(), explanation=ExplanationRequest("forest"))


async def test_model_without_head_explains_nothing(make_service: MakeService, backend: Backend) -> None:
    """A model whose head is unknown raises ExplanationUnavailable, and still predicts."""
    service = make_service()
    with pytest.raises(ExplanationUnavailable):
        service.check_explanation(ExplanationRequest())
    with pytest.raises(ExplanationUnavailable):
        predict_image(backend, png(1), ExplanationRequest())


# Draws one overlay to warm up, then prints the estimated and the measured peak of a large one.
_MEASURE = """
import json
from pathlib import Path
import numpy as np
from api.server.allocator import limit_memory_use, return_free_memory
from model.explanation.overlay import draw_overlay, estimate_overlay_bytes
def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
limit_memory_use()
heat = np.random.default_rng(1).uniform(0, 1, (8, 8)).astype(np.float32)
draw_overlay(np.zeros((64, 64, 3), np.uint8), heat, (0.5, 0.5))
pixels = np.random.default_rng(1).integers(0, 256, (1200, 1500, 3), np.uint8)
return_free_memory()
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
draw_overlay(pixels, heat, (0.5, 0.5))
print(json.dumps([estimate_overlay_bytes(1500, 1200), memory("VmHWM") - before]))
"""


def test_no_overlay_takes_more_memory_than_estimated() -> None:
    """The peak memory while an overlay is drawn is below the estimate, even for noise, which does not compress."""
    if sys.platform != "linux":
        missing("reads /proc")
    measured = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True)
    estimate, peak = json.loads(measured.stdout)
    assert estimate / 3 < peak <= estimate
