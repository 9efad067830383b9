"""Predictions in worker threads, for callers on an event loop."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from model.backends.stub import StubBackend
from model.errors import CorruptImage, DeadlineExceeded, Overloaded
from model.imaging.decode import ImageNeeds, decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from model.serving.overload_policy import QueueLimits
from model.serving.prediction import Prediction
from model.serving.queue import Job
from model.serving.service import PredictionService
from tests.model.serving.gated import FakeClock, GatedBackend, MakeService, StageReports, png, until
from tests.support.polling import PATIENCE_S
from tests.support.requirements import missing


async def test_a_prediction_describes_the_result_the_image_and_the_model(
    backend: GatedBackend, make_service: MakeService
) -> None:
    """A prediction contains the back end's probabilities, facts about the image and the model's description."""
    backend.gate.set()
    data = png(10)
    prediction = await make_service().predict(data)
    expected = StubBackend().predict(decode_image(data, DEFAULT_INPUT).pixels[np.newaxis])[0]
    assert np.array_equal(prediction.probabilities, expected)
    assert prediction.index == int(expected.argmax())
    assert prediction.label == backend.info.classes[prediction.index]
    assert prediction.confidence == pytest.approx(float(expected.max()))
    assert prediction.model == backend.info
    assert prediction.image.sha256 == hashlib.sha256(data).hexdigest()
    assert (prediction.image.format, prediction.image.width, prediction.image.height) == ("PNG", 40, 30)
    assert prediction.image.bytes == len(data)


async def test_top_lists_the_most_likely_labels_first(backend: GatedBackend, make_service: MakeService) -> None:
    """The first label is the predicted one; a number beyond the number of classes returns all of them."""
    backend.gate.set()
    prediction = await make_service().predict(png(10))
    top = prediction.top(3)
    assert len(top) == 3
    assert top[0] == (prediction.label, prediction.confidence)
    everything = prediction.top(100)
    assert everything[:3] == top
    assert [share for _, share in everything] == sorted((share for _, share in everything), reverse=True)
    assert {label for label, _ in everything} == set(backend.info.classes)


async def test_the_event_loop_is_free_while_a_prediction_runs(
    backend: GatedBackend, make_service: MakeService, reports: StageReports
) -> None:
    """All stages run in the service's own threads, while the event loop's thread does other work."""
    task = asyncio.create_task(make_service().predict(png(1)))
    await until(lambda: backend.in_progress == 1)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not task.done()
    backend.gate.set()
    await task
    assert [stage for stage, _, _ in reports] == ["queue", "decode", "infer"]
    assert {thread.split("_")[0] for _, _, thread in reports} == {"predict"}


async def test_each_worker_runs_one_prediction_at_a_time(backend: GatedBackend, make_service: MakeService) -> None:
    """Three workers take three of six jobs, and the others wait."""
    service = make_service(workers=3, slots=3)
    tasks = [asyncio.create_task(service.predict(png(value))) for value in range(6)]
    await until(lambda: backend.in_progress == 3)
    assert service.queue.waiting == 3
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert backend.max_in_progress == 3
    assert service.queue.waiting == 0


async def test_a_request_cancelled_while_queued_costs_no_work(backend: GatedBackend, make_service: MakeService) -> None:
    """The slot of a cancelled request is free at once, and its image is never predicted."""
    service = make_service(workers=1, slots=1)
    running = asyncio.create_task(service.predict(png(0)))
    await until(lambda: backend.in_progress == 1)
    for value in range(20):
        queued = asyncio.create_task(service.predict(png(value)))
        await until(lambda: service.queue.waiting == 1)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        assert service.queue.waiting == 0
    backend.gate.set()
    await running
    await service.predict(png(0))
    assert backend.calls == 2


async def test_a_request_cancelled_while_queued_frees_its_image(
    backend: GatedBackend, make_service: MakeService
) -> None:
    """The bytes of a cancelled request are released while the worker is still busy with another job."""
    if sys.implementation.name != "cpython":
        missing("counts references")
    service = make_service(workers=1, slots=1)
    running = asyncio.create_task(service.predict(png(0)))
    await until(lambda: backend.in_progress == 1)
    data = png(1)
    before = sys.getrefcount(data)
    queued = asyncio.create_task(service.predict(data))
    await until(lambda: service.queue.waiting == 1)
    assert sys.getrefcount(data) > before
    queued.cancel()
    await asyncio.wait([queued])
    del queued
    gc.collect()
    assert sys.getrefcount(data) == before
    backend.gate.set()
    await running


async def test_a_request_cancelled_while_running_keeps_its_slot_until_the_work_ends(
    backend: GatedBackend, make_service: MakeService
) -> None:
    """The caller continues at once, but the worker counts as busy until its thread is done."""
    service = make_service(workers=1, slots=0)
    task = asyncio.create_task(service.predict(png(0)))
    await until(lambda: backend.in_progress == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(Overloaded):
        await service.predict(png(1))
    backend.gate.set()
    await until(lambda: backend.in_progress == 0)
    assert (await retry_until_accepted(service, png(1))).image.width == 40


async def retry_until_accepted(service: PredictionService, data: bytes) -> Prediction:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await service.predict(data)
            except Overloaded:
                await asyncio.sleep(0)


async def test_a_corrupt_image_is_an_error_of_its_caller_and_frees_the_slot(
    backend: GatedBackend, make_service: MakeService, reports: StageReports
) -> None:
    """The caller gets CorruptImage, the time spent on decoding is reported, and nothing is inferred."""
    service = make_service(workers=1, slots=0)
    with pytest.raises(CorruptImage):
        await service.predict(png(1)[:40])
    assert [stage for stage, _, _ in reports] == ["queue", "decode"]
    backend.gate.set()
    assert (await service.predict(png(1))).image.width == 40


async def test_an_error_of_the_back_end_reaches_the_caller_and_frees_the_slot() -> None:
    """The error is raised where the prediction is awaited, and the worker goes on to the next request."""

    class FailingBackend(StubBackend):
        def predict_pooled(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            raise RuntimeError(f"no answer for {pixels.shape}")

    service = PredictionService(FailingBackend(), workers=1, limits=QueueLimits(0), on_stage=lambda *_: None)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="no answer"):
            await service.predict(png(1))
    service.close()


async def test_stages_are_reported_in_seconds_and_returned(
    backend: GatedBackend, make_service: MakeService, reports: StageReports
) -> None:
    """The callback gets the same times as the prediction contains."""
    backend.gate.set()
    prediction = await make_service().predict(png(1))
    assert dict(prediction.timing) == {stage: seconds for stage, seconds, _ in reports}
    assert set(prediction.timing) == {"queue", "decode", "infer"}
    assert all(0 <= seconds < PATIENCE_S for seconds in prediction.timing.values())


async def test_closing_finishes_accepted_requests(backend: GatedBackend, make_service: MakeService) -> None:
    """`close` waits for queued jobs; later requests raise RuntimeError."""
    others = set(threading.enumerate())
    service = make_service(workers=1, slots=2)
    tasks = [asyncio.create_task(service.predict(png(value))) for value in range(3)]
    await until(lambda: service.queue.waiting == 2)
    closing = asyncio.create_task(asyncio.to_thread(service.close))
    backend.gate.set()
    assert len(await asyncio.gather(*tasks)) == 3
    await closing
    with pytest.raises(RuntimeError):
        await service.predict(png(4))
    assert service.queue.waiting == 0
    assert not [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("predict")]


async def test_a_job_past_its_deadline_is_not_decoded(
    backend: GatedBackend, make_service: MakeService, reports: StageReports, clock: FakeClock
) -> None:
    """A job whose deadline passes in the queue is not decoded; a deadline that cannot be met is rejected at once."""
    service = make_service(workers=1, slots=4, clock=clock)
    running = asyncio.create_task(service.predict(png(1)))
    await until(lambda: backend.in_progress == 1)
    late = asyncio.create_task(service.predict(png(1), deadline=clock.now + 60))
    await until(lambda: service.queue.waiting == 1)
    with pytest.raises(Overloaded):
        await service.predict(png(1), deadline=clock.now + 0.05)
    clock.now += 61
    backend.gate.set()
    await running
    with pytest.raises(DeadlineExceeded):
        await late
    assert [stage for stage, _, _ in reports] == ["queue", "decode", "infer", "queue"]


def list_jobs() -> list[object]:
    """Return all jobs and results of measuring that exist in this process."""
    return [each for each in gc.get_objects() if isinstance(each, Job | ImageNeeds)]


async def test_an_idle_worker_keeps_no_file(backend: GatedBackend, make_service: MakeService) -> None:
    """Once a file is measured, or classified, the worker thread holds neither the job nor its result."""
    left_by_other_tests = list_jobs()  # kept alive, so that no new object reuses an id
    ids = set(map(id, left_by_other_tests))
    backend.gate.set()
    service = make_service(workers=1)
    await service.measure(png(10))
    await service.predict(png(10))
    await until(lambda: not {id(each) for each in list_jobs()} - ids)
