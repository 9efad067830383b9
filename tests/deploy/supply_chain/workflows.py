"""The GitHub workflows of this repository, as data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))


def read_workflow(path: Path) -> dict[str, Any]:
    """Return a workflow, with its triggers under "on", which YAML 1.1 reads as true."""
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text())
    return {"on" if key is True else key: value for key, value in workflow.items()}


def list_jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name and the definition of every job."""
    for path in WORKFLOWS:
        for name, job in read_workflow(path)["jobs"].items():
            yield f"{path.stem}/{name}", job


def list_steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the job's name and the definition of every step."""
    for name, job in list_jobs():
        for step in job.get("steps", []):  # a job that calls another workflow has none
            yield name, step
