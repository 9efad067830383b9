"""Entry point of the training process. Its only argument is a TrainOptions as JSON."""

from __future__ import annotations

import json
import sys

from model.offline.keras_process import run_entry_point, silence_stderr
from model.offline.train import TrainOptions


def main() -> None:
    with silence_stderr():
        from model.offline.train.run import train

    train(TrainOptions(**json.loads(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
