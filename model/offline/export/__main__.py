"""Entry point of the export process. Its only argument is an ExportOptions as JSON."""

from __future__ import annotations

import json
import os
import sys

from model.errors import ModelError
from model.offline.export import ExportOptions
from model.offline.keras_process import silence_stderr


def main() -> int:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # A GPU rounds more coarsely than the comparison tolerates.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with silence_stderr():
        from model.offline.export.build import export

    try:
        manifest = export(ExportOptions(**json.loads(sys.argv[1])))
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Exported {manifest.full_name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
