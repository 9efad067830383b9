"""An independent verifier in JavaScript, written from docs/ledger.md alone, agrees with the project's own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from monitoring.chains.signing import Verifier
from monitoring.ledger.exports.files import read_export
from monitoring.ledger.verification.stream import verify
from tests.support.gateway import Gateway
from tests.support.paths import ROOT
from tests.support.requirements import find_program

HERE = ROOT / "tests" / "contract" / "ledger"
EXAMPLE = HERE / "example.jsonl"
PUBLIC_KEY = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="


def run_other(public_key: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run the verifier in JavaScript."""
    command = [find_program("node", packages="nodejs"), str(HERE / "verify.mjs"), public_key, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_worked_example_verifies() -> None:
    """Both verifiers accept the example of docs/ledger.md, and the page shows the hashes of its records."""
    finding = verify(read_export(EXAMPLE), Verifier([PUBLIC_KEY]))
    assert (finding.problems, finding.entries) == ([], 1)
    done = run_other(PUBLIC_KEY, EXAMPLE)
    assert (done.returncode, done.stdout) == (0, "1\n")
    page = (ROOT / "docs" / "ledger.md").read_text()
    for record in list(read_export(EXAMPLE))[1:]:
        hashed: Any = getattr(record, "entry", record)
        assert hashed.hash in page


def test_a_real_export_verifies(gateway: Gateway, tmp_path: Path) -> None:
    """Both verifiers count the same entries in an export of a running gateway, and reject it with any line removed."""
    gateway.send_every_kind_of_request()
    path = tmp_path / "export.jsonl"
    assert gateway.run("ledger", "export", str(path)).returncode == 0
    public_key = gateway.run("ledger", "key").stdout.strip()
    own = verify(read_export(path), Verifier([public_key]))
    assert own.problems == []
    assert run_other(public_key, path).stdout == f"{own.entries}\n"
    lines = path.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    last_checkpoint = max(record["checkpoint"] for record in records if record["kind"] == "head")
    assert last_checkpoint >= 1
    for position in range(1, len(lines)):
        # A checkpoint that no head refers to yet is proved only by an anchor (docs/ledger.md).
        if records[position]["kind"] == "checkpoint" and records[position]["number"] > last_checkpoint:
            continue
        path.write_text("\n".join(lines[:position] + lines[position + 1 :]) + "\n")
        assert run_other(public_key, path).returncode == 1, lines[position]
        assert verify(read_export(path), Verifier([public_key])).problems, lines[position]
