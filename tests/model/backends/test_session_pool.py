"""Which session of a model a prediction gets."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from model.backends.session_pool import SessionPool, using_one_core
from tests.support.polling import PATIENCE_S


def borrow_together(pool: SessionPool, count: int) -> list[str]:
    """Borrow that many sessions at the same time, and return them in order."""
    with ExitStack() as stack:
        return [stack.enter_context(pool.borrow()) for _ in range(count)]


def test_a_prediction_that_runs_alone_gets_the_parallel_session() -> None:
    """One that starts while another is running gets a session that uses one core."""
    pool = SessionPool(["first", "second"], "parallel")
    assert borrow_together(pool, 1) == ["parallel"]
    assert borrow_together(pool, 3) == ["parallel", "second", "first"]
    assert borrow_together(pool, 1) == ["parallel"]


def test_a_prediction_that_is_compared_uses_one_core() -> None:
    """Its processor time is then that of its thread. Later predictions of the thread may use two cores again."""
    pool = SessionPool(["only"], "parallel")
    with using_one_core():
        assert borrow_together(pool, 1) == ["only"]
    assert borrow_together(pool, 1) == ["parallel"]


def test_a_prediction_is_alone_when_the_others_have_ended() -> None:
    """What counts is the number of predictions that are running, not which sessions they use."""
    pool = SessionPool(["first", "second"], "parallel")
    with pool.borrow() as lone, pool.borrow() as other:
        assert (lone, other) == ("parallel", "second")
    with ExitStack() as first:
        first.enter_context(pool.borrow())
        with pool.borrow() as beside:
            first.close()
            with pool.borrow() as next_one:
                assert (beside, next_one) == ("second", "first")


def test_without_a_parallel_session_all_predictions_use_one_core() -> None:
    """The session that was used last is used next: it has the most memory in the cache."""
    pool = SessionPool(["first", "second"])
    assert borrow_together(pool, 1) == ["second"]
    assert borrow_together(pool, 2) == ["second", "first"]
    assert borrow_together(pool, 1) == ["second"]


def test_a_prediction_waits_for_a_session() -> None:
    """With all sessions in use, a prediction waits until one is returned."""
    pool = SessionPool(["only"])
    borrowed = threading.Event()

    def predict() -> None:
        with pool.borrow():
            borrowed.set()

    with pool.borrow():
        waiting = threading.Thread(target=predict)
        waiting.start()
        assert not borrowed.wait(0.05)
    assert borrowed.wait(PATIENCE_S)
    waiting.join()


def test_an_error_returns_the_session() -> None:
    """A prediction that fails returns its session, and no longer counts as running."""
    pool = SessionPool(["first"], "parallel")
    for _ in range(2):
        with pytest.raises(ValueError, match="parallel"), pool.borrow() as session:
            raise ValueError(session)


def test_all_free_sessions_can_be_borrowed() -> None:
    """Those in use are left out, and all are returned afterwards in the same order."""
    pool = SessionPool(["first", "second"], "parallel")
    with pool.borrow_free() as free:
        assert free == ["second", "first", "parallel"]
    with pool.borrow(), pool.borrow_free() as free:
        assert free == ["second", "first"]
    assert borrow_together(pool, 3) == ["parallel", "second", "first"]


def test_a_prediction_starts_while_the_free_sessions_are_borrowed() -> None:
    """It waits for a session that uses one core, because the parallel one is borrowed, too."""
    pool = SessionPool(["only"], "parallel")
    borrowed: list[str] = []

    def predict() -> None:
        with pool.borrow() as session:
            borrowed.append(session)

    with pool.borrow_free():
        waiting = threading.Thread(target=predict)
        waiting.start()
        waiting.join(0.05)
        assert borrowed == []
    waiting.join()
    assert borrowed == ["only"]


def test_a_closed_pool_has_no_sessions() -> None:
    """Closing forgets the sessions, those in use when they are returned; a second call does nothing."""
    pool = SessionPool(["first", "second"], "parallel")
    with pool.borrow(), pool.borrow():
        pool.close()
        pool.close()
    with pool.borrow_free() as free:
        assert free == []
    with pytest.raises(RuntimeError, match="closed"), pool.borrow():
        pass


def test_closing_ends_the_wait_for_a_session() -> None:
    """A prediction that waits when the pool is closed fails; it would wait forever."""
    pool = SessionPool(["only"])
    with pool.borrow(), ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(borrow_together, pool, 1)
        pool.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result(PATIENCE_S)


def test_no_two_predictions_share_a_session() -> None:
    """Four threads borrow three sessions in many interleavings, beside one that borrows all free ones."""
    in_use = {"first": threading.Lock(), "second": threading.Lock(), "parallel": threading.Lock()}
    pool = SessionPool(["first", "second"], "parallel")

    def use(session: str) -> None:
        assert in_use[session].acquire(blocking=False), f"{session} is used twice"
        time.sleep(0)  # lets another thread run
        in_use[session].release()

    def predict(_: int) -> str:
        with pool.borrow() as session:
            use(session)
            return str(session)

    def release(_: int) -> None:
        with pool.borrow_free() as sessions:
            for session in sessions:
                use(session)

    with ThreadPoolExecutor(4) as predictions, ThreadPoolExecutor(1) as releases:
        released = releases.map(release, range(200))
        used = Counter(predictions.map(predict, range(2000)))
        list(released)
    assert used.total() == 2000
    assert borrow_together(pool, 3)[0] == "parallel"  # all three were returned
