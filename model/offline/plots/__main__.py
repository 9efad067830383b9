"""Entry point of the process that draws the plots of an evaluation. Its only argument is JSON."""

from __future__ import annotations

import json
import sys

from model.offline.keras_process import run_entry_point
from model.offline.plots.draw import draw


def main() -> None:
    draw(**json.loads(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
