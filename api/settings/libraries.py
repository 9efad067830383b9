"""How to add an optional library to the environment that the gateway runs in."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from api.settings.home import INSTALLATION


def describe_installation(requirements: str) -> str:
    """Return the sentence that says how to install a file of `requirements/` into this environment.

    A bare `pip` would be that of the system, and a service works in another folder than that of the code.
    """
    file = INSTALLATION / "requirements" / requirements
    pip = Path(sys.prefix) / "bin" / "pip"
    if file.is_file() and pip.is_file():
        return f"Run `{shlex.join((str(pip), 'install', '--require-hashes', '-r', str(file)))}`."
    return f"Install requirements/{requirements} of the source code into {sys.prefix}."
