"""Remove pip, and ensurepip, which can install it again, from the Python that runs this script (see Dockerfile)."""

import shutil
import sys
from pathlib import Path

for pattern in (
    "bin/pip",
    "bin/pip3*",
    "lib/python3*/ensurepip",
    "lib/python3*/site-packages/pip",
    "lib/python3*/site-packages/pip-*",
):
    for path in Path(sys.prefix).glob(pattern):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
