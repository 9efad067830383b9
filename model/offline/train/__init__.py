"""Fine-tuning of EfficientNetB0. Only the modules of this package import TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass

from model.imaging.input_spec import InputSpec


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Defines a run: the same options and data give the same split and the same learning-rate schedule.

    `data` and `out` are folders. `init` is "imagenet", a `.weights.h5` file of the backbone, or the `.keras` file of an
    earlier run; with the seed of that run, training continues on the same split. The model takes square images of
    `input_size` pixels, scaled with `resize_filter`.
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
    input_size: int = 256
    resize_filter: str = "bicubic"

    @property
    def input_spec(self) -> InputSpec:
        return InputSpec(self.input_size, self.input_size, self.resize_filter)
