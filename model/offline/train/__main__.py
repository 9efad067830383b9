"""Entry point of the training process. Its only argument is a TrainOptions as JSON."""

from __future__ import annotations

import json
import sys

from model.errors import ModelError
from model.offline.keras_process import silence_stderr
from model.offline.train import TrainOptions


def main() -> int:
    with silence_stderr():
        from model.offline.train.run import train

    try:
        train(TrainOptions(**json.loads(sys.argv[1])))
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
