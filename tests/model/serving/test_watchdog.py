"""Which jobs the watchdog reports as stuck."""

from __future__ import annotations

import pytest

from model.serving.watchdog import Watchdog


@pytest.mark.parametrize(("limit_s", "checks"), [(10, 40), (1, 4), (0.4, 4)])
def test_a_job_is_stuck_after_the_limit(limit_s: float, checks: int) -> None:
    """A job that is running at more checks than fit into the limit is reported once."""
    watchdog = Watchdog[str](limit_s)
    assert watchdog.interval_s * checks == pytest.approx(limit_s)
    assert [watchdog.find_stuck(["long"]) for _ in range(checks)] == [[]] * checks
    assert watchdog.find_stuck(["long", "new"]) == ["long"]
    assert watchdog.find_stuck(["long", "new"]) == []


def test_a_job_that_ends_in_time_is_forgotten() -> None:
    """The count starts again for a job that was not running at one of the checks."""
    watchdog = Watchdog[str](1)
    for running in (["job"],) * 4 + ([],) + (["job"],) * 4:
        assert watchdog.find_stuck(running) == []
