"""Heads with random weights."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from model.explanation.head import DenseLayer, Head


def make_head(*widths: int, seed: int = 0, offset: tuple[float, float] = (0.0, 0.0)) -> Head:
    """A head whose layers have `widths` values, channels first and classes last; a ReLU follows all but the last."""
    generator = np.random.default_rng(seed)
    layers = [
        DenseLayer(
            kernel=generator.normal(0, 1, (inputs, outputs)).astype(np.float32),
            bias=generator.normal(0, 1, outputs).astype(np.float32),
            relu=number < len(widths) - 2,
        )
        for number, (inputs, outputs) in enumerate(pairwise(widths))
    ]
    return Head(tuple(layers), offset)
