"""Compare an SBOM with what an image has installed: `python3 -m deploy.release.sbom atalaya.cdx.json < INSTALLED`.

INSTALLED has a line NAME==VERSION for each distribution; the program LIST prints these lines inside the image. Needs no
packages.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LIST = "from importlib.metadata import distributions as d; print(*(f'{i.name}=={i.version}' for i in d()), sep='\\n')"


def normalise(name: str) -> str:
    """Return the normalised form of a distribution's name (PyPA: name normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_components(sbom: dict[str, Any]) -> set[str]:
    """Return NAME==VERSION of each component of a CycloneDX document, and of what the document describes."""
    components = [sbom["metadata"]["component"], *sbom["components"]]
    return {f"{normalise(each['name'])}=={each['version']}" for each in components}


def find_differences(sbom: dict[str, Any], installed: Iterable[str]) -> list[str]:
    """Return a line for each distribution that only one of the two has."""
    listed = read_components(sbom)
    present = {f"{normalise(name)}=={version}" for name, _, version in (line.partition("==") for line in installed)}
    return [
        *(f"{each} is installed but not listed" for each in sorted(present - listed)),
        *(f"{each} is listed but not installed" for each in sorted(listed - present)),
    ]


if __name__ == "__main__":
    lines = sys.stdin.read().split()
    sys.exit("\n".join(find_differences(json.loads(Path(sys.argv[1]).read_text()), lines)) or None)
