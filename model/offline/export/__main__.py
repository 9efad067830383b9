"""Entry of the export process: one argument, the options as JSON."""

from __future__ import annotations

import json
import os
import sys

from model.errors import ModelError
from model.offline.export import ExportOptions
from model.offline.keras_process import start_quietly


def main() -> int:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a GPU rounds more coarsely than the comparison allows
    with start_quietly():
        from model.offline.export.build import export

    try:
        manifest = export(ExportOptions(**json.loads(sys.argv[1])))
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{manifest.full_name} is exported.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
