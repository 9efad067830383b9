"""`python -m model.backends.prepared`: build one copy, in a process that can be killed at any time.

Standard input is the JSON object that `encode_job` writes. The process runs at the lowest priority.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from model.backends.prepared.builder import build_copy
from model.backends.prepared.copies import PreparedCopies
from model.errors import ModelError

_NICENESS = 19


def main() -> None:
    """Exit with status 0 if there is a valid copy, otherwise with 1 and the reason on standard error."""
    os.nice(_NICENESS)
    job = json.load(sys.stdin)
    copies = PreparedCopies(Path(job["folder"]), bytes.fromhex(job["key"]))
    try:
        build_copy(copies, Path(job["artefact"]), job["digest"])
    except ModelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
