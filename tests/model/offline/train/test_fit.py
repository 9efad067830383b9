"""The compiled training step."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from model.offline.train import Stage, TrainOptions
from model.offline.train.fit import compile_model
from tests.model.offline.conftest import ignores_array_copies

pytestmark = [pytest.mark.keras, ignores_array_copies]


class CountedModel(keras.Model):  # type: ignore[misc]  # keras is untyped
    """A model that counts how often TensorFlow traces its training step."""

    traces = 0

    def train_step(self, data: object) -> object:
        self.traces += 1
        return super().train_step(data)


def test_the_training_step_is_traced_once() -> None:
    """The first step creates no variables: otherwise TensorFlow would trace the step, which takes long, twice."""
    inputs = keras.Input((3,))
    model = CountedModel(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
    compile_model(model, TrainOptions(data="", init="", out="", stages=(Stage(64, 1),)), steps_per_epoch=2)
    model.fit(np.zeros((4, 3)), np.eye(2)[[0, 1, 0, 1]], batch_size=2, verbose=0)
    assert model.traces == 1
