"""Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks", 2017), without autodiff.

Only global average pooling and dense layers lie between the feature maps and the logits. So the gradient of a logit is
the same at every position of a map: the gradient with respect to the map's mean, divided by the number of positions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.explanation.head import Head


def compute_grad_cam(head: Head, features: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    """Return how much each position contributes to the logit of class `index`, float32 [height, width], not negative.

    `features` are the feature maps of one image, float32 [height, width, channels].
    """
    height, width, _ = features.shape
    weights = head.differentiate(features.mean(axis=(0, 1)), index) / np.float32(height * width)
    contributions: NDArray[np.float32] = features @ weights
    return np.maximum(contributions, 0)


def scale_to_one(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide by the largest value. A map of zeros stays zero."""
    largest = heat.max()
    return heat / largest if largest > 0 else heat
