from __future__ import annotations

from typing import Any

from model.offline.changes import ALL_CHANGES, SIX_CHANGES
from model.offline.train.ablation import make_ablation_section


def make_run(accuracy: float, without: list[str]) -> dict[str, Any]:
    """Make the metrics of a run with this accuracy under the six changes, 0.9 at x2, and 1 on clean images."""
    robustness = {"clean": 1.0, **dict.fromkeys(ALL_CHANGES, 0.9), **dict.fromkeys(SIX_CHANGES, accuracy)}
    return {
        "options": {"stages": [{"size": 160, "epochs": 3}], "without": without},
        "data": {"images": {"validation": 168}},
        "robustness": {"validation": robustness},
    }


def test_ablation_lists_what_each_run_lacks() -> None:
    """Each row names the parts that a run lacks, and contains its accuracies on the validation images."""
    section = make_ablation_section([make_run(0.95, []), make_run(0.85, ["light", "scale"])])
    assert "3 epochs at 160 pixels" in section
    assert "168 validation images" in section
    assert section.splitlines()[-2:] == [
        "| nothing | 1.000 | 0.950 | 0.900 |",
        "| light, scale | 1.000 | 0.850 | 0.900 |",
    ]
