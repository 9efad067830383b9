"""Entry point of the training process. Its only argument is a TrainOptions as JSON."""

from __future__ import annotations

import json
import os
import sys

from model.offline.keras_process import run_entry_point, silence_stderr
from model.offline.train import parse_options


def main() -> None:
    # Measured on AVX2: with oneDNN a step takes half the time. TensorFlow enables it only on newer processors.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with silence_stderr():
        from model.offline.train.run import train

    train(parse_options(json.loads(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
