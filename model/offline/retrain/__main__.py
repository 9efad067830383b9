"""Entry point of the retraining process. Its only argument is a RetrainOptions as JSON."""

from __future__ import annotations

import json
import sys

from model.offline.keras_process import run_entry_point
from model.offline.retrain import RetrainOptions
from model.offline.retrain.process import run_retraining


def main() -> None:
    run_retraining(RetrainOptions(**json.loads(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
