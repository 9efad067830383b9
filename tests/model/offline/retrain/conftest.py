"""A small retraining run from the archive for another machine. It is killed once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from model.imaging.input_spec import InputSpec
from model.offline.retrain import RetrainOptions
from model.offline.retrain.archive import write_archive
from tests.model.offline.train.toy_run import COLOURS, SIDE, TIMEOUT_S, write_data

# Runs the archive until its first trial has ended, and then kills this process.
_RUN_ONE_TRIAL = """
import builtins, os, runpy, signal, sys
show = builtins.print
def show_and_end(*values, **options):
    show(*values, **options)
    if str(values[0] if values else "").startswith("Trial"):
        os.kill(os.getpid(), signal.SIGKILL)
builtins.print = show_and_end
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Retrained:
    """The folder of the finished run, the archive, and the lines printed by the killed and by the last process."""

    out: Path
    archive: Path
    killed: list[str]
    last: list[str]


@pytest.fixture(scope="session")
def start(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of five classes whose head is untrained, with the record of its classes and input."""
    from model.offline.train.network import build_network  # absent where no test uses this fixture

    folder = tmp_path_factory.mktemp("start")
    build_network(len(COLOURS), str(backbone), InputSpec(SIDE, SIDE, "lanczos")).save(folder / "model.keras")
    record = {"classes": list(COLOURS), "input": {"width": SIDE, "height": SIDE, "resize_filter": "lanczos"}}
    (folder / "metrics.json").write_text(json.dumps(record))
    return folder / "model.keras"


@pytest.fixture(scope="session")
def retrained(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    folder = tmp_path_factory.mktemp("retrain")
    data, archive, out = write_data(folder / "data"), folder / "retrain.pyz", folder / "out"
    # A budget this small ends the search after the first trial, and the fit after the first epoch.
    options = RetrainOptions(str(data), str(start), "", budget_minutes=0.01, validation_fraction=0.25)
    write_archive(archive, options)

    def run(*command: str) -> tuple[int, list[str]]:
        arguments = [sys.executable, "-u", *command, str(archive), str(out)]
        done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False, timeout=TIMEOUT_S, cwd=folder)
        return done.returncode, done.stdout.splitlines()

    killed, finished = run("-c", _RUN_ONE_TRIAL), run()
    assert (killed[0], finished[0]) == (-signal.SIGKILL, 0)
    return Retrained(out, archive, killed[1], finished[1])
