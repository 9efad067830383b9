from __future__ import annotations

from pathlib import Path

from model.offline.retrain.budget import Budget


def test_budget_continues_where_the_last_process_saved_it(tmp_path: Path) -> None:
    """A resumed run has the rest of its budget; the time between its processes does not count."""
    now = [1000.0]
    budget = Budget(tmp_path / "budget.json", 600, lambda: now[0])
    now[0] += 120
    budget.save()
    now[0] = 5000.0
    resumed = Budget(tmp_path / "budget.json", 600, lambda: now[0])
    assert resumed.spent_s == 120
    now[0] += 240
    assert resumed.remaining_s(0.5) == -60
    assert str(resumed) == "6.0 of 10 minutes"
