"""Which callers a candidate serves."""

from __future__ import annotations

from itertools import pairwise

import pytest

from model.canary.assignment import CallerAssignment

KEY = b"k" * 32
PRINCIPALS = [f"user-{number}" for number in range(20_000)]


def select(assignment: CallerAssignment, share: float) -> set[str]:
    return {principal for principal in PRINCIPALS if assignment.is_assigned(principal, share)}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_share_of_callers_is_met(share: float) -> None:
    """The share of principals that the candidate serves is within 4 standard deviations of the configured share."""
    tolerance = 4 * (share * (1 - share) * len(PRINCIPALS)) ** 0.5
    assert abs(len(select(CallerAssignment(KEY, "1.2"), share)) - share * len(PRINCIPALS)) < tolerance


def test_no_share_selects_nobody_and_the_whole_selects_everybody() -> None:
    """A share of 0 assigns no principal to the candidate, and a share of 1 assigns all."""
    assert select(CallerAssignment(KEY, "1.2"), 0.0) == set()
    assert select(CallerAssignment(KEY, "1.2"), 1.0) == set(PRINCIPALS)


def test_larger_share_keeps_the_callers_of_a_smaller_one() -> None:
    """Raising the share never moves a principal back to production."""
    assignment = CallerAssignment(KEY, "1.2")
    selected = [select(assignment, share) for share in (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)]
    assert all(smaller < larger for smaller, larger in pairwise(selected))


def test_choice_is_the_same_in_every_process() -> None:
    """The choice depends only on the key, the candidate and the principal, so that these values never change."""
    assignment = CallerAssignment(KEY, "1.2")
    assert [n for n in range(40) if assignment.is_assigned(f"user-{n}", 0.1)] == [12, 24, 28, 33, 37]


@pytest.mark.parametrize("other", [CallerAssignment(KEY, "1.3"), CallerAssignment(b"x" * 32, "1.2")])
def test_other_candidates_and_keys_select_others(other: CallerAssignment) -> None:
    """Another candidate, or another key, serves other principals; about 1 % are the same by chance."""
    both = select(CallerAssignment(KEY, "1.2"), 0.1) & select(other, 0.1)
    assert len(both) < 0.02 * len(PRINCIPALS)
