"""The folder of a retraining."""

from __future__ import annotations

import json
from pathlib import Path

from api.errors import CommandFailed
from model.offline.retrain import METRICS, MODEL
from model.offline.retrain.comparison import PairedCounts

_OPTIONS = "options.json"


def choose_folder(chosen: Path | None, default: Path, *, resume: bool) -> Path:
    """Return the folder for a run: `chosen`, or the first of `default`, `default`-2 and so on that contains no run.

    To resume without `chosen`, return the last of these that contains a run, unless its candidate was worse. Raises
    CommandFailed if the chosen folder contains a run that cannot or must not continue.
    """
    if chosen is not None:
        _check_chosen(chosen, resume=resume)
        return chosen
    folders = [default]
    while _has_run(folders[-1]):
        folders.append(default.with_name(f"{default.name}-{len(folders) + 1}"))
    can_resume = len(folders) > 1 and not _has_ended_worse(folders[-2])
    return folders[-2] if resume and can_resume else folders[-1]


def read_comparison(folder: Path) -> PairedCounts:
    """Return the comparison of a finished run."""
    return PairedCounts(**json.loads((folder / METRICS).read_text())["comparison"])


def _check_chosen(folder: Path, *, resume: bool) -> None:
    if not resume and _has_run(folder):
        raise CommandFailed(f"{folder} contains a run. Continue it with --resume, or choose another --out.")
    if _has_ended_worse(folder):
        raise CommandFailed(f"{folder} contains a finished run, whose candidate was worse. Choose another --out.")


def _has_run(folder: Path) -> bool:
    return (folder / _OPTIONS).exists()


def _has_ended_worse(folder: Path) -> bool:
    return (folder / MODEL).exists() and read_comparison(folder).is_worse
