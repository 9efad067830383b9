"""The ablation table of a model card, which shows the effect of each part of the recipe.

    python -m model.offline.train.ablation RUN RUN_WITHOUT_LIGHT RUN_WITHOUT_SCALE ...

prints a section for the card from finished runs of the same length. The first run has all parts; each other lacks some.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from model.offline.changes import SIX_CHANGES
from model.offline.train.model_card import describe_stages


def make_ablation_section(runs: list[dict[str, Any]]) -> str:
    """Return the section as Markdown. `runs` are contents of metrics.json; results are for the validation images."""
    options = runs[0]["options"]
    rows = "\n".join(_describe_run(run) for run in runs)
    return f"""## Ablation
Short runs ({describe_stages(options["stages"])}) from the same starting weights, each without one part of the recipe.
All results are accuracies on the {runs[0]["data"]["images"]["validation"]} validation images.

| without | clean | mean of six changes | ground resolution x2 |
|---|---|---|---|
{rows}
"""


def _describe_run(run: dict[str, Any]) -> str:
    accuracy = run["robustness"]["validation"]
    six = np.mean([accuracy[name] for name in SIX_CHANGES])
    values = (accuracy["clean"], six, accuracy["ground resolution x2"])
    left_out = ", ".join(run["options"]["without"]) or "nothing"
    return f"| {left_out} | " + " | ".join(f"{value:.3f}" for value in values) + " |"


if __name__ == "__main__":
    print(make_ablation_section([json.loads((Path(folder) / "metrics.json").read_text()) for folder in sys.argv[1:]]))
