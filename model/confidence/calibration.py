"""Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TINY = np.finfo(np.float32).tiny


def calibrate(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Divide the logits of softmax outputs, float32 [..., classes], by `temperature`; the ranking stays the same.

    The logarithm restores the logits up to a constant, which does not affect the result. Each row adds up to 1.
    """
    if temperature == 1:
        return probabilities
    # In double precision, so that the order of the classes does not change the sum's last bits.
    logits = np.log(np.maximum(probabilities, _TINY, dtype=np.float64)) / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    calibrated: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return calibrated
