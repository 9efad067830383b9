"""A verifier in another language, written from the documentation alone, agrees with ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from monitoring.chains.signing import Verifier
from monitoring.ledger.exports.files import read_export
from monitoring.ledger.verification.stream import verify

HERE = Path(__file__).parent
EXAMPLE = HERE / "example.jsonl"
PUBLIC_KEY = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="


def run(public_key: str, path: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("node") is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("Node.js is not installed: apt-get install nodejs")
    command: list[str | Path] = ["node", HERE / "verify.mjs", public_key, path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_worked_example_verifies() -> None:
    """The example of docs/ledger.md is good to both verifiers, and its numbers stand in the page."""
    finding = verify(read_export(EXAMPLE), Verifier([PUBLIC_KEY]))
    assert (finding.problems, finding.entries) == ([], 1)
    done = run(PUBLIC_KEY, EXAMPLE)
    assert (done.returncode, done.stdout) == (0, "1\n")
    page = (HERE.parents[2] / "docs" / "ledger.md").read_text()
    for record in list(read_export(EXAMPLE))[1:]:
        told: Any = getattr(record, "entry", record)
        assert told.hash in page


def test_a_real_export_verifies(gateway: Any, tmp_path: Path) -> None:
    """Both verifiers count the same entries in an export of a running gateway; neither accepts a changed one."""
    gateway.traffic()
    path = tmp_path / "export.jsonl"
    assert gateway.run("ledger", "export", str(path)).returncode == 0
    public_key = gateway.run("ledger", "key").stdout.strip()
    ours = verify(read_export(path), Verifier([public_key]))
    assert ours.problems == []
    assert run(public_key, path).stdout == f"{ours.entries}\n"
    lines = path.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    seen = max(record["checkpoint"] for record in records if record["kind"] == "head")
    assert seen >= 1
    for place in range(1, len(lines)):
        # What no head has seen yet, an anchor alone proves (docs/ledger.md).
        if records[place]["kind"] == "checkpoint" and records[place]["number"] > seen:
            continue
        path.write_text("\n".join(lines[:place] + lines[place + 1 :]) + "\n")
        assert run(public_key, path).returncode == 1, lines[place]
        assert verify(read_export(path), Verifier([public_key])).problems, lines[place]
