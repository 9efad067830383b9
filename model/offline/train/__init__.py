"""Fine-tune EfficientNetB0. This module itself does not import TensorFlow."""

from __future__ import annotations

from msgspec import Struct

from model.imaging.input_spec import InputSpec


class Stage(Struct, frozen=True):
    """A number of epochs on square images of `size` pixels."""

    size: int
    epochs: int


# The shipped model's stages; they take more than an hour on two cores.
DEFAULT_STAGES = (Stage(192, 22), Stage(256, 14))
# Parts of the recipe that a run can leave out, to measure the effect of each.
PARTS = ("light", "colour", "scale", "noise", "mixing", "averaging")


class TrainOptions(Struct, frozen=True):
    """Defines a run: the same options and data give the same split, batches and learning rates.

    `data`, `extra` and `out` are folders. `init` is "imagenet", a `.weights.h5` file of the backbone, or the `.keras`
    file of an earlier run; with the seed of that run, training continues on the same split. `extra` contains more
    training images of some classes, from another camera. Their light and scale are always changed.
    The model takes square images of `input_size` pixels, scaled with `resize_filter`; `ground_resolution_m` is the side
    of such a pixel on the ground, in metres. `without` names `PARTS` to leave out.
    """

    data: str
    init: str
    out: str
    extra: str | None = None
    stages: tuple[Stage, ...] = DEFAULT_STAGES
    batch_size: int = 32
    seed: int = 20260101
    peak_learning_rate: float = 5e-4
    validation_fraction: float = 0.1
    input_size: int = 256
    resize_filter: str = "bicubic"
    ground_resolution_m: float | None = None
    without: tuple[str, ...] = ()
    label_smoothing: float = 0.05
    weight_decay: float = 0.02

    @property
    def input_spec(self) -> InputSpec:
        return InputSpec(self.input_size, self.input_size, self.resize_filter, self.ground_resolution_m)

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    @property
    def parts(self) -> frozenset[str]:
        """The parts of the recipe that this run uses."""
        return frozenset(PARTS) - frozenset(self.without)

    def find_stage(self, epoch: int) -> Stage:
        """Return the stage of an epoch, counted from 0."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage
            epoch -= stage.epochs
        raise ValueError(f"the run has only {self.epochs} epochs")


def parse_options(document: dict[str, object]) -> TrainOptions:
    """Read a TrainOptions from JSON members."""
    members = dict(document)
    members["stages"] = tuple(Stage(**stage) for stage in members["stages"])  # type: ignore[attr-defined]
    members["without"] = tuple(members["without"])  # type: ignore[arg-type]
    return TrainOptions(**members)  # type: ignore[arg-type]
