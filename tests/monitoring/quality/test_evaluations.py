"""Evaluations of the served model in the database."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.quality.evaluation_store import EvaluationStore
from monitoring.quality.evaluations import EvaluationComparison
from tests.monitoring.quality.evaluations import make_evaluation


async def test_evaluations_are_read_as_they_were_added(engine: AsyncEngine) -> None:
    """Evaluations are listed in the order they were added, from a given time on, with their comparison if any."""
    store = EvaluationStore(engine)
    assert await store.find_latest() is None
    first = make_evaluation(at=10)
    second = make_evaluation(at=20, comparison=EvaluationComparison(first.id, 7, 0, 0.016), is_loss=True)
    for record in (first, second):
        await store.add(record)
    assert await store.list() == [first, second]
    assert await store.list(since=20) == [second]
    assert await store.find_latest() == second


async def test_an_evaluation_of_other_images_does_not_end_a_loss(engine: AsyncEngine) -> None:
    """A loss of the latest evaluated model persists until the same images are evaluated again without a loss."""
    store, other = EvaluationStore(engine), "ef" * 32
    assert await store.find_loss() is None
    good, loss = make_evaluation(), make_evaluation(is_loss=True)
    for record in (good, loss, make_evaluation(data_digest=other)):
        await store.add(record)
    assert await store.find_loss() == loss
    await store.add(make_evaluation(data_digest=other, digest="01" * 32))
    assert await store.find_loss() is None
    await store.add(make_evaluation(data_digest=other))
    assert await store.find_loss() == loss
    await store.add(make_evaluation())
    assert await store.find_loss() is None


async def test_a_loss_is_no_reference(engine: AsyncEngine) -> None:
    """The reference for a set of images is its last evaluation that was not a loss."""
    store = EvaluationStore(engine)
    earlier, good, other, loss = (
        make_evaluation(),
        make_evaluation(),
        make_evaluation(data_digest="ef" * 32),
        make_evaluation(is_loss=True),
    )
    for record in (earlier, good, other, loss):
        await store.add(record)
    assert await store.find_reference(good.data_digest) == good
    assert await store.find_reference("00" * 32) is None
