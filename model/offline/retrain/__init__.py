"""Retrain a model of `atalaya train`: search hyper-parameters within a time budget, then fit with the best ones.

This module itself does not import TensorFlow.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from model.imaging.input_spec import InputSpec
from model.offline.train import Stage, TrainOptions

# The results of a finished run. All other files in its folder are only for resuming.
MODEL, METRICS, CARD = "model.keras", "metrics.json", "MODEL_CARD.md"
# The first trained layer of EfficientNetB0 with the head of `atalaya train`, and a name for the trained part.
TRAINED_PARTS = {"hidden": "the head", "block7a_expand_conv": "the last block and the head"}


class RetrainOptions(Struct, frozen=True):
    """Defines a run. `data` has train/ and test/, `start` is a `.keras` file, `out` the folder of the run.

    `budget_minutes` is the wall-clock time up to the import, over all processes of the run. `trials` also limits the
    search. Without `data`/validation, the validation images are split off from the training images with `seed` and
    `validation_fraction`. The defaults are those of `atalaya train`, so that both use the same validation images.
    """

    data: str
    start: str
    out: str
    budget_minutes: float = 20.0
    trials: int | None = None
    seed: int = 20260101
    validation_fraction: float = 0.1


class Choice(Struct, frozen=True):
    """The hyper-parameters of a trial and of the final fit; `trained_from` is the first layer that is trained."""

    learning_rate: float
    label_smoothing: float
    weight_decay: float
    dropout: float
    trained_from: str

    def make_train_options(self, options: RetrainOptions, spec: InputSpec, epochs: int) -> TrainOptions:
        """Return the options of `atalaya train` for this many epochs on images of the model's input size."""
        return TrainOptions(
            data=options.data,
            init=options.start,
            out=options.out,
            stages=(Stage(spec.width, epochs),),
            seed=options.seed,
            peak_learning_rate=self.learning_rate,
            validation_fraction=options.validation_fraction,
            input_size=spec.width,
            resize_filter=spec.resize_filter,
            ground_resolution_m=spec.ground_resolution_m,
            label_smoothing=self.label_smoothing,
            weight_decay=self.weight_decay,
        )


def read_choice(values: dict[str, Any]) -> Choice:
    """Return the hyper-parameters among `values`, to which Keras Tuner adds others."""
    return Choice(**{name: values[name] for name in Choice.__struct_fields__})
