"""The exact McNemar test on two evaluations of the same images."""

from __future__ import annotations

import numpy as np
import pytest

from model.quality.pairs import compare_pairs


@pytest.mark.parametrize(
    ("lost", "gained", "p_value", "is_loss"),
    [
        (0, 0, 1.0, False),
        (5, 0, 0.0625, False),
        (6, 0, 0.03125, True),
        (0, 6, 0.03125, False),
        (10, 10, 1.0, False),
        (12, 2, 0.012939453125, True),
    ],
)
def test_images_that_changed_decide(lost: int, gained: int, p_value: float, is_loss: bool) -> None:
    """The p-value is the binomial one of the images that changed; images that did not change do not affect it."""
    earlier = np.array([True] * lost + [False] * gained + [True] * 150 + [False] * 40)
    later = np.array([False] * lost + [True] * gained + [True] * 150 + [False] * 40)
    found = compare_pairs(earlier, later)
    assert (found.lost, found.gained, found.is_loss) == (lost, gained, is_loss)
    assert found.p_value == pytest.approx(p_value)
