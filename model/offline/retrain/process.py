"""Import TensorFlow quietly, and run a retraining in this process."""

from __future__ import annotations

import importlib.util
import os

from model.errors import KerasMissing
from model.offline.keras_process import silence_stderr
from model.offline.retrain import RetrainOptions

_NEEDED = ("tensorflow", "keras", "keras_tuner", "PIL", "matplotlib", "rich")


def run_retraining(options: RetrainOptions) -> None:
    """Retrain in this process. Raises DatasetError, and KerasMissing if a required package is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise KerasMissing(f"These Python packages are missing: {', '.join(missing)}. Install requirements/keras.txt.")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in model.offline.train
    with silence_stderr():
        import tensorflow as tf

        from model.offline.retrain.run import retrain
    # Each trial creates a model, which TensorFlow would warn about.
    tf.get_logger().setLevel("ERROR")

    retrain(options)
