"""`atalaya cost` and the usage errors of `atalaya report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.cli import run


@pytest.mark.usefixtures("january")
def test_cost_of_a_month(capsys: pytest.CaptureFixture[str]) -> None:
    """The only caller is charged the whole cost: processor time and memory at Railway's prices."""
    assert run(["cost", "--month", "2025-01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    processor_h, memory_gb_h = 10 * (12 * 36 + 12 * 6) / 3600, 10 * 24 * 0.25
    assert found["cost"]["processor"] == pytest.approx(processor_h * 0.02778)
    assert found["cost"]["memory"] == pytest.approx(memory_gb_h * 0.01386)
    (maps,) = found["callers"]
    assert (maps["name"], maps["predictions"]) == ("maps", 120)
    assert maps["cost"]["total"] == pytest.approx(found["cost"]["total"])
    assert found["sleep"]["idle_hours"] == 120
    assert [machine["fits"] for machine in found["machines"]] == [False, True, True]


@pytest.mark.usefixtures("january")
def test_cost_as_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables name callers, and say what is unknown without a ledger or without measurements."""
    assert run(["cost", "--month", "2025-01"]) == 0
    printed = capsys.readouterr().out
    assert "maps" in printed
    assert "120 of 240 measured hours had no request." in printed
    monkeypatch.setenv("LEDGER__ENABLED", "false")
    assert run(["cost", "--month", "2025-01"]) == 0
    assert "Requests are not recorded (LEDGER__ENABLED=false)" in capsys.readouterr().out
    assert run(["cost", "--month", "2024-01"]) == 0
    assert "No gateway measured its resources in this month" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["cost", "--month", "January"], "is not a month such as 2026-11"),
        (["report", "--quarter", "2026-4"], "is not a quarter such as 2026Q4"),
        (["report", "--quarter", "9000Q1"], "9000Q1 has not begun"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    """A malformed month or quarter, or a quarter in the future, is a usage error."""
    assert run(arguments) == 2
    assert text in capsys.readouterr().err


@pytest.mark.usefixtures("january")
def test_a_report_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The error names the file and the reason."""
    path = tmp_path / "missing" / "report.html"
    assert run(["report", "--quarter", "2025Q1", "--out", str(path)]) == 1
    assert f"{path} cannot be written: No such file or directory." in capsys.readouterr().err
