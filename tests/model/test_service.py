from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.backends.stub import StubBackend
from model.errors import CorruptImage, DeadlineExceeded, Overloaded
from model.images import decode_image
from model.service import Prediction, PredictionService, QueueLimits

Make = Callable[..., PredictionService]
Reports = list[tuple[str, float, str]]


class GatedBackend(StubBackend):
    """A stub that answers only while its gate is open, and counts who is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.calls = self.inside = self.most_inside = 0
        self._count = threading.Lock()

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._count:
            self.calls += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            assert self.gate.wait(timeout=10)
            return super().predict(pixels)
        finally:
            with self._count:
                self.inside -= 1


@pytest.fixture
def backend() -> Iterator[GatedBackend]:
    backend = GatedBackend()
    yield backend
    backend.gate.set()


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
def make_service(backend: GatedBackend, reports: Reports) -> Iterator[Make]:
    services: list[PredictionService] = []

    def make(workers: int = 1, queue_limit: int = 2) -> PredictionService:
        def on_stage(stage: str, seconds: float) -> None:
            reports.append((stage, seconds, threading.current_thread().name))

        service = PredictionService(backend, workers=workers, limits=QueueLimits(queue_limit), on_stage=on_stage)
        services.append(service)
        return service

    yield make
    backend.gate.set()
    for service in services:
        service.close()


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (value, 100, 0)).save(buffer, "PNG")
    return buffer.getvalue()


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (it changes in other threads)
            await asyncio.sleep(0)


async def test_a_prediction_says_what_was_seen_by_which_model(backend: GatedBackend, make_service: Make) -> None:
    """An answer holds the back end's own probabilities, the image's facts and the model's description."""
    backend.gate.set()
    data = png(10)
    prediction = await make_service().predict(data)
    expected = StubBackend().predict(decode_image(data).pixels[np.newaxis])[0]
    assert np.array_equal(prediction.probabilities, expected)
    assert prediction.index == int(expected.argmax())
    assert prediction.label == backend.info.classes[prediction.index]
    assert prediction.confidence == pytest.approx(float(expected.max()))
    assert prediction.model == backend.info
    assert prediction.image.sha256 == hashlib.sha256(data).hexdigest()
    assert (prediction.image.format, prediction.image.width, prediction.image.height) == ("PNG", 40, 30)
    assert prediction.image.bytes == len(data)


async def test_top_lists_the_likeliest_labels_first(backend: GatedBackend, make_service: Make) -> None:
    """The first of the top labels is the answer; more than there are classes gives them all."""
    backend.gate.set()
    prediction = await make_service().predict(png(10))
    top = prediction.top(3)
    assert len(top) == 3
    assert top[0] == (prediction.label, prediction.confidence)
    everything = prediction.top(100)
    assert everything[:3] == top
    assert [share for _, share in everything] == sorted((share for _, share in everything), reverse=True)
    assert {label for label, _ in everything} == set(backend.info.classes)


async def test_the_event_loop_goes_on_while_a_prediction_runs(
    backend: GatedBackend, make_service: Make, reports: Reports
) -> None:
    """All stages happen in the service's own threads; the event loop's thread does other work meanwhile."""
    task = asyncio.create_task(make_service().predict(png(1)))
    await until(lambda: backend.inside == 1)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not task.done()
    backend.gate.set()
    await task
    assert [stage for stage, _, _ in reports] == ["queue", "decode", "infer"]
    assert {thread.split("_")[0] for _, _, thread in reports} == {"predict"}


async def test_as_many_run_at_once_as_there_are_workers(backend: GatedBackend, make_service: Make) -> None:
    """Three workers take three of six jobs, the others wait for their turn."""
    service = make_service(workers=3, queue_limit=3)
    tasks = [asyncio.create_task(service.predict(png(value))) for value in range(6)]
    await until(lambda: backend.inside == 3)
    assert service.waiting == 3
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert backend.most_inside == 3
    assert service.waiting == 0


async def test_a_full_queue_turns_callers_away(backend: GatedBackend, make_service: Make) -> None:
    """With one running and two waiting, the fourth is refused at once, and a place that is free again is given."""
    service = make_service(workers=1, queue_limit=2)
    tasks = [asyncio.create_task(service.predict(png(value))) for value in range(3)]
    await until(lambda: service.waiting == 2)
    with pytest.raises(Overloaded) as refusal:
        await service.predict(png(4))
    assert refusal.value.retry_after_s >= 1
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert (await service.predict(png(4))).image.width == 40


async def test_a_queue_of_no_places_still_serves(backend: GatedBackend, make_service: Make) -> None:
    """A limit of 0 means that nobody waits, not that nobody is served."""
    service = make_service(workers=1, queue_limit=0)
    task = asyncio.create_task(service.predict(png(1)))
    await until(lambda: backend.inside == 1)
    with pytest.raises(Overloaded):
        await service.predict(png(2))
    backend.gate.set()
    await task


async def test_the_estimated_wait_grows_with_the_queue(backend: GatedBackend, make_service: Make) -> None:
    """Before any job was timed one is taken to need 0.05 s: forty of them on one worker are 2 s."""
    service = make_service(workers=1, queue_limit=39)
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(40)]
    await until(lambda: service.waiting == 39)
    with pytest.raises(Overloaded) as refusal:
        await service.predict(png(1))
    assert refusal.value.retry_after_s == 2
    backend.gate.set()
    await asyncio.gather(*tasks)


async def test_who_gives_up_while_queued_costs_nothing(backend: GatedBackend, make_service: Make) -> None:
    """A cancelled caller's place is free at once, and its image is never decoded."""
    service = make_service(workers=1, queue_limit=1)
    running = asyncio.create_task(service.predict(png(0)))
    await until(lambda: backend.inside == 1)
    for value in range(20):
        queued = asyncio.create_task(service.predict(png(value)))
        await until(lambda: service.waiting == 1)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        assert service.waiting == 0
    backend.gate.set()
    await running
    await service.predict(png(0))
    assert backend.calls == 2


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts references")
async def test_who_gives_up_while_queued_leaves_no_image_behind(backend: GatedBackend, make_service: Make) -> None:
    """The bytes of a cancelled upload are let go while the worker is still busy with another."""
    service = make_service(workers=1, queue_limit=1)
    running = asyncio.create_task(service.predict(png(0)))
    await until(lambda: backend.inside == 1)
    data = png(1)
    before = sys.getrefcount(data)
    queued = asyncio.create_task(service.predict(data))
    await until(lambda: service.waiting == 1)
    assert sys.getrefcount(data) > before
    queued.cancel()
    await asyncio.wait([queued])
    del queued
    gc.collect()
    assert sys.getrefcount(data) == before
    backend.gate.set()
    await running


async def test_who_gives_up_while_running_frees_the_place_when_the_work_ends(
    backend: GatedBackend, make_service: Make
) -> None:
    """The caller is released at once; the thread is busy until it is done, and counts until then."""
    service = make_service(workers=1, queue_limit=0)
    task = asyncio.create_task(service.predict(png(0)))
    await until(lambda: backend.inside == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(Overloaded):
        await service.predict(png(1))
    backend.gate.set()
    await until(lambda: backend.inside == 0)
    assert (await eventually(service, png(1))).image.width == 40


async def eventually(service: PredictionService, data: bytes) -> Prediction:
    """Ask again until there is a place."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await service.predict(data)
            except Overloaded:
                await asyncio.sleep(0)


async def test_a_refused_image_reaches_the_caller_and_frees_its_place(
    backend: GatedBackend, make_service: Make, reports: Reports
) -> None:
    """A corrupt image is the caller's own error; the time it took is reported, and nothing was inferred."""
    service = make_service(workers=1, queue_limit=0)
    with pytest.raises(CorruptImage):
        await service.predict(png(1)[:40])
    assert [stage for stage, _, _ in reports] == ["queue", "decode"]
    backend.gate.set()
    assert (await service.predict(png(1))).image.width == 40


async def test_a_failing_back_end_reaches_the_caller_and_frees_its_place() -> None:
    """An error of the model is raised where the prediction was awaited, and the next request is served the same."""

    class FailingBackend(StubBackend):
        def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise RuntimeError(f"no answer for {pixels.shape}")

    service = PredictionService(FailingBackend(), workers=1, limits=QueueLimits(0), on_stage=lambda *_: None)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="no answer"):
            await service.predict(png(1))
    service.close()


async def test_stages_are_reported_in_seconds_and_returned(
    backend: GatedBackend, make_service: Make, reports: Reports
) -> None:
    """The callback hears the very times that the prediction carries."""
    backend.gate.set()
    prediction = await make_service().predict(png(1))
    assert dict(prediction.timing) == {stage: seconds for stage, seconds, _ in reports}
    assert set(prediction.timing) == {"queue", "decode", "infer"}
    assert all(0 <= seconds < 30 for seconds in prediction.timing.values())


async def test_closing_finishes_what_was_admitted(backend: GatedBackend, make_service: Make) -> None:
    """A shutdown loses no accepted request; later ones are an error."""
    service = make_service(workers=1, queue_limit=2)
    tasks = [asyncio.create_task(service.predict(png(value))) for value in range(3)]
    await until(lambda: service.waiting == 2)
    closing = asyncio.create_task(asyncio.to_thread(service.close))
    backend.gate.set()
    assert len(await asyncio.gather(*tasks)) == 3
    await closing
    with pytest.raises(RuntimeError):
        await service.predict(png(4))
    assert service.waiting == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("predict")]


async def test_who_sends_much_waits_behind_its_own(backend: GatedBackend, make_service: Make) -> None:
    """Of a crowd of one caller's and one request of another's, the latter is next but one."""
    service = make_service(workers=1, queue_limit=20)
    order: list[str] = []

    async def ask(caller: str) -> None:
        await service.predict(png(1), caller=caller)
        order.append(caller)

    tasks = [asyncio.create_task(ask("many")) for _ in range(10)]
    await until(lambda: service.waiting == 9)
    tasks.append(asyncio.create_task(ask("few")))
    await until(lambda: service.waiting == 10)
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert order.index("few") <= 2


async def test_in_a_full_queue_the_longest_line_makes_room(backend: GatedBackend, make_service: Make) -> None:
    """A newcomer takes the place of the last one of whoever sends most; who sends most is turned away itself."""
    service = make_service(workers=1, queue_limit=4)
    many = [asyncio.create_task(service.predict(png(1), caller="many")) for _ in range(5)]
    await until(lambda: service.waiting == 4)
    service.check_room("few")
    few = asyncio.create_task(service.predict(png(1), caller="few"))
    await until(many[-1].done)
    assert isinstance(many[-1].exception(), Overloaded)
    with pytest.raises(Overloaded):
        service.check_room("many")
    with pytest.raises(Overloaded):
        await service.predict(png(1), caller="many")
    backend.gate.set()
    await asyncio.gather(few, *many[:-1])


async def test_nobody_waits_for_longer_than_the_limit(backend: GatedBackend) -> None:
    """The queue is bounded by the estimated wait, too: at 50 ms a job, two and a half are too much for 0.1 s."""
    limits = QueueLimits(places=100, seconds=0.1)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(3)]
    await until(lambda: service.waiting == 2)
    with pytest.raises(Overloaded):
        await service.predict(png(1))
    backend.gate.set()
    await asyncio.gather(*tasks)
    service.close()


async def test_under_overload_the_wait_is_short(backend: GatedBackend) -> None:
    """After somebody was turned away one more may wait, not four: who is let in is answered soon."""
    limits = QueueLimits(places=4, seconds=60, strict_s=60)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(5)]
    await until(lambda: service.waiting == 4)
    with pytest.raises(Overloaded):
        await service.predict(png(1))
    backend.gate.set()
    await asyncio.gather(*tasks)
    backend.gate.clear()
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(2)]
    await until(lambda: service.waiting == 1)
    with pytest.raises(Overloaded):
        await service.predict(png(1))
    backend.gate.set()
    await asyncio.gather(*tasks)
    service.close()


async def test_a_crowd_ends_the_wait_of_those_who_came_before_it(backend: GatedBackend) -> None:
    """When more than half as many were turned away as wait, only those stay who would still be let in."""
    limits = QueueLimits(places=4, seconds=60, strict_s=60)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(5)]
    await until(lambda: service.waiting == 4)
    for waiting in (4, 4, 1):
        with pytest.raises(Overloaded):
            await service.predict(png(1))
        assert service.waiting == waiting
    backend.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Prediction] * 2 + [Overloaded] * 3
    service.close()


async def test_in_a_flood_only_who_has_nothing_here_waits(backend: GatedBackend) -> None:
    """A caller who floods the service gets a worker that is free and no place: that is for others, one at a time."""
    limits = QueueLimits(places=4, seconds=60, strict_s=60)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    tasks = [asyncio.create_task(service.predict(png(1), caller="many")) for _ in range(5)]
    await until(lambda: service.waiting == 4)
    for _ in range(6):
        with pytest.raises(Overloaded):
            await service.predict(png(1), caller="many")
    assert service.waiting == 1  # of those who came before
    few = asyncio.create_task(service.predict(png(1), caller="few"))
    await until(tasks[1].done)
    assert isinstance(tasks[1].exception(), Overloaded)
    for caller in ("many", "few", "third"):
        with pytest.raises(Overloaded):
            service.check_room(caller)
    few.cancel()
    await until(lambda: service.waiting == 0)
    with pytest.raises(Overloaded):
        service.check_room("many")
    service.check_room("third")
    backend.gate.set()
    await asyncio.gather(*tasks, few, return_exceptions=True)
    assert isinstance(await service.predict(png(1), caller="many"), Prediction)
    service.close()


async def test_the_haste_of_one_is_no_crowd(backend: GatedBackend) -> None:
    """Who asks for an answer sooner than it can be had is turned away alone: nobody else notices."""
    limits = QueueLimits(places=4, seconds=60, strict_s=60)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(4)]
    await until(lambda: service.waiting == 3)
    for _ in range(10):
        with pytest.raises(Overloaded):
            await service.predict(png(1), deadline=time.monotonic())
    tasks.append(asyncio.create_task(service.predict(png(1))))
    await until(lambda: service.waiting == 4)
    with pytest.raises(Overloaded):
        await service.predict(png(1), caller="another", deadline=time.monotonic())
    assert service.waiting == 4
    backend.gate.set()
    assert [type(answer) for answer in await asyncio.gather(*tasks)] == [Prediction] * 5
    service.close()


async def test_a_burst_that_is_over_is_forgotten(backend: GatedBackend) -> None:
    """Once the strict time is over and fewer were turned away than answered, as many may wait as before."""
    limits = QueueLimits(places=4, seconds=60, strict_s=0.05)
    service = PredictionService(backend, workers=1, limits=limits, on_stage=lambda *_: None)
    for _ in range(2):
        tasks = [asyncio.create_task(service.predict(png(1))) for _ in range(5)]
        await until(lambda: service.waiting == 4)
        with pytest.raises(Overloaded):
            await service.predict(png(1))
        backend.gate.set()
        await asyncio.gather(*tasks)
        backend.gate.clear()
        await asyncio.sleep(0.06)
    service.close()


async def test_past_its_deadline_nothing_is_decoded(
    backend: GatedBackend, make_service: Make, reports: Reports
) -> None:
    """A job whose time ran out while it waited costs no work; one that could not be in time is turned away at once."""
    service = make_service(workers=1, queue_limit=4)
    running = asyncio.create_task(service.predict(png(1)))
    await until(lambda: backend.inside == 1)
    late = asyncio.create_task(service.predict(png(1), deadline=time.monotonic() + 0.2))
    await until(lambda: service.waiting == 1)
    with pytest.raises(Overloaded):
        await service.predict(png(1), deadline=time.monotonic() + 0.05)
    await asyncio.sleep(0.2)
    backend.gate.set()
    await running
    with pytest.raises(DeadlineExceeded):
        await late
    assert [stage for stage, _, _ in reports] == ["queue", "decode", "infer", "queue"]
