"""Entry point of the export process. Its only argument is an ExportOptions as JSON."""

from __future__ import annotations

import json
import os
import sys

from model.offline.export import ExportOptions
from model.offline.keras_process import run_entry_point, silence_stderr


def main() -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # A GPU rounds more coarsely than the comparison tolerates.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with silence_stderr():
        from model.offline.export.build import export

    manifest = export(ExportOptions(**json.loads(sys.argv[1])))
    print(f"Exported {manifest.full_name}.")


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
