"""Pairs of requests that different models served."""

from __future__ import annotations

import numpy as np
import pytest

from model.canary.pairing import Arm, Pair, Pairing

C, P = Arm.CANDIDATE, Arm.PRODUCTION


def pair_all(arms: list[Arm]) -> list[Pair[int]]:
    """Pair results that are numbered in the order of arrival."""
    pairing = Pairing[int]()
    return [pair for number, arm in enumerate(arms) if (pair := pairing.add(arm, number))]


@pytest.mark.parametrize(
    ("arms", "pairs"),
    [
        ([C], []),
        ([C, P], [Pair(0, 1)]),
        ([P, C], [Pair(1, 0)]),
        ([P, P, P, C], [Pair(3, 2)]),
        ([C, C, P], [Pair(1, 2)]),
        ([P, C, C, P], [Pair(1, 0), Pair(2, 3)]),
    ],
)
def test_result_is_paired_with_the_latest_of_the_other_arm(arms: list[Arm], pairs: list[Pair[int]]) -> None:
    """A result completes a pair with the latest unpaired result of the other arm; each result is used once."""
    assert pair_all(arms) == pairs


def test_most_results_of_a_small_canary_are_paired() -> None:
    """If the candidate serves a tenth of the requests, more than 80 % of its results are paired."""
    arms = [C if is_candidate else P for is_candidate in np.random.default_rng(1).random(5000) < 0.1]
    assert len(pair_all(arms)) > 0.8 * arms.count(C)
