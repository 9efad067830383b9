"""Grad-CAM maps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.explanation.grad_cam import compute_grad_cam, scale_to_one
from model.explanation.head import DenseLayer, Head
from tests.model.explanation.heads import make_head

FEATURES = np.random.default_rng(5).uniform(0, 1, (3, 4, 6)).astype(np.float32)


def compute_by_definition(head: Head, features: NDArray[np.float32], index: int) -> NDArray[np.float64]:
    """Compute the map as the paper defines it, with finite differences instead of gradients."""
    weights = np.zeros(features.shape[-1])
    for channel in range(features.shape[-1]):
        slopes = []
        for position in np.ndindex(features.shape[:2]):
            step = np.zeros_like(features)
            step[*position, channel] = 0.05
            above, below = (head.compute_logits(each.mean(axis=(0, 1))) for each in (features + step, features - step))
            slopes.append((above[index] - below[index]) / 0.1)
        weights[channel] = np.mean(slopes)
    heat: NDArray[np.float64] = np.maximum((features * weights).sum(axis=-1), 0)
    return heat


@pytest.mark.parametrize("hidden", [(), (7,), (7, 5)], ids=["one layer", "two layers", "three layers"])
def test_map_is_that_of_the_definition(hidden: tuple[int, ...]) -> None:
    """The map is the ReLU of the sum of the feature maps, each weighted with the mean gradient of the class's logit."""
    head = make_head(6, *hidden, 3)
    for index in range(3):
        expected = compute_by_definition(head, FEATURES, index)
        np.testing.assert_allclose(
            compute_grad_cam(head, FEATURES, index), expected, atol=1e-2 * (1e-3 + expected.max())
        )


def test_rows_and_columns_keep_their_positions() -> None:
    """The only position with features is the only position of the map that is not zero."""
    features = np.zeros((3, 4, 2), np.float32)
    features[2, 1] = 1
    head = Head((DenseLayer(np.ones((2, 2), np.float32), np.zeros(2, np.float32), relu=False),))
    assert np.argwhere(compute_grad_cam(head, features, 0)).tolist() == [[2, 1]]


def test_each_class_has_its_own_map() -> None:
    """Explaining another class gives another map."""
    head = make_head(6, 7, 3)
    maps = [compute_grad_cam(head, FEATURES, index) for index in range(3)]
    assert not np.allclose(maps[0], maps[1])
    assert not np.allclose(maps[1], maps[2])


def test_random_weights_change_the_map() -> None:
    """The map depends on the weights of the head (the sanity check of Adebayo et al., 2018), not only on the image.

    Over many random heads, the ranks of the positions are uncorrelated with those of the original map on average.
    """
    features = np.random.default_rng(2).normal(0, 1, (8, 8, 32)).astype(np.float32)
    original = _rank(compute_grad_cam(make_head(32, 16, 3), features, 0))
    randomised = [_rank(compute_grad_cam(make_head(32, 16, 3, seed=seed), features, 0)) for seed in range(1, 41)]
    correlations = [np.corrcoef(original, ranks)[0, 1] for ranks in randomised]
    assert abs(np.mean(correlations)) < 0.2
    assert max(correlations) < 0.95


def _rank(heat: NDArray[np.float32]) -> NDArray[np.intp]:
    return heat.ravel().argsort().argsort()


def test_the_largest_value_is_scaled_to_one() -> None:
    """Scaling divides the map by its largest value."""
    assert scale_to_one(np.array([[0, 2], [4, 1]], np.float32)).tolist() == [[0, 0.5], [1, 0.25]]


def test_a_map_without_support_for_the_class_is_zero() -> None:
    """If no feature supports the class, the map is zero everywhere, not undefined."""
    head = Head((DenseLayer(-np.ones((6, 2), np.float32), np.zeros(2, np.float32), relu=False),))
    heat = scale_to_one(compute_grad_cam(head, FEATURES, 0))
    assert heat.shape == (3, 4)
    assert not heat.any()
