"""Compare lock files with the published advisories: `python -m deploy.release.audit [OPTIONS OF PIP-AUDIT] LOCK_FILE…`.

The exit status is 0 if no advisory concerns a pinned version, and 1 if one does or if a package could not be compared:
a scanner that cannot reach its data reports no advisories.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_PIP_AUDIT = Path(sys.executable).parent / "pip-audit"
_OPTIONS = ("--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json")


class AdvisoriesUnavailable(Exception):
    """The advisories could not be read for every package."""


def find_advisories(lock_file: str, options: list[str]) -> list[str]:
    """Return a line for each advisory about a version that the lock file pins. Raises AdvisoriesUnavailable."""
    command: list[str | Path] = [_PIP_AUDIT, *_OPTIONS, *options, "--requirement", lock_file]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    except ValueError:
        cause = run.stderr.strip().rpartition("\n")[2]
        raise AdvisoriesUnavailable(f"The advisories could not be read: {cause}") from None
    skipped = [f"{package['name']}: {package['skip_reason']}" for package in packages if "skip_reason" in package]
    if skipped or not packages:
        raise AdvisoriesUnavailable(f"{len(skipped)} packages were not compared: {'; '.join(skipped[:3])}")
    return [
        f"{package['name']} {package['version']}: {advisory['id']}, fixed in {', '.join(fixes) or 'no version'}"
        for package in packages
        for advisory in package["vulns"]
        for fixes in [advisory["fix_versions"]]
    ]


def main(arguments: list[str]) -> int:
    lock_files = [argument for argument in arguments if argument.endswith(".txt")]
    options = [argument for argument in arguments if argument not in lock_files]
    failed = False
    for lock_file in lock_files:
        try:
            found = find_advisories(lock_file, options)
        except AdvisoriesUnavailable as error:
            found = [f"error: {error}"]
        failed = failed or bool(found)
        print(f"{lock_file}:", *(found or ["no advisories"]), sep="\n  ")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
