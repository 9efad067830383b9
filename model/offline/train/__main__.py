"""Entry of the training process: one argument, the options as JSON."""

from __future__ import annotations

import json
import sys

from model.errors import ModelError
from model.offline.keras_process import start_quietly
from model.offline.train import TrainOptions


def main() -> int:
    with start_quietly():
        from model.offline.train.fit import train

    try:
        train(TrainOptions(**json.loads(sys.argv[1])))
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
