"""Fine-tuning of EfficientNetB0. Importing this package loads no TensorFlow; its modules do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What defines a run: the same options on the same data cut the same splits and schedule.

    `data` and `out` are folders, `init` is "imagenet", a `.weights.h5` file of the backbone, or a
    `.keras` file of an earlier run: with the same seed it goes on with the same split.
    """

    data: str
    init: str
    out: str
    epochs: int = 12
    batch_size: int = 32
    seed: int = 20260101
    peak_learning_rate: float = 1e-3
    patience: int = 5
    validation_fraction: float = 0.1
