"""Draw an evaluation with Matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

Curves = Sequence[Mapping[str, Any]]  # each with the members of ReliabilityCurve

_COLOURS = ("tab:orange", "tab:blue")
_MARKERS = ("s", "o")


def draw(path: str, title: str, curves: Curves, accuracies: Mapping[str, float], mean_of_six: float | None) -> None:
    """Write a PNG: a reliability diagram above histograms of the confidence and, with `mean_of_six`, the accuracies.

    `accuracies` maps the names of changes to accuracies; the first one is for the unchanged images.
    """
    columns = 1 if mean_of_six is None else 2
    figure = plt.figure(figsize=(6.5 * columns, 8), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(2, columns, height_ratios=(3, 1))
    top = figure.add_subplot(grid[0, 0])
    _draw_reliability(top, curves)
    _draw_histograms(figure.add_subplot(grid[1, 0], sharex=top), curves)
    if mean_of_six is not None:
        _draw_accuracies(figure.add_subplot(grid[:, 1]), accuracies, mean_of_six)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_reliability(axis: Any, curves: Curves) -> None:
    axis.plot((0, 1), (0, 1), color="grey", linestyle=":", label="perfect calibration")
    for curve, colour, marker in zip(curves, _COLOURS, _MARKERS, strict=False):
        confidence, accuracy, low, high = np.array(curve["points"]).T
        spread = np.maximum((accuracy - low, high - accuracy), 0)
        axis.errorbar(
            confidence, accuracy, spread, color=colour, marker=marker, linewidth=0.8, alpha=0.7, label=curve["label"]
        )
    start = min(_find_start(curve) for curve in curves)
    axis.set(xlim=(start, 1.01), ylim=(start, 1.01), ylabel="accuracy")
    axis.set_title("Reliability: bins with the same number of images, 95 % intervals", fontsize="medium")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")


def _find_start(curve: Mapping[str, Any]) -> float:
    """Return the minimum of all points, intervals and confidences, rounded down to a tenth."""
    lowest_confidence = np.flatnonzero(curve["counts"])[0] / len(curve["counts"])
    return float(np.floor(10 * min(lowest_confidence, np.min(curve["points"]))) / 10)


def _draw_histograms(axis: Any, curves: Curves) -> None:
    for curve, colour in zip(curves, _COLOURS, strict=False):
        edges = np.linspace(0, 1, len(curve["counts"]) + 1)
        axis.stairs(curve["counts"], edges, color=colour, fill=True, alpha=0.4)
        axis.stairs(curve["counts"], edges, color=colour)
    axis.set(xlabel="confidence (largest probability)", ylabel="images")
    axis.grid(alpha=0.3)


def _draw_accuracies(axis: Any, accuracies: Mapping[str, float], mean_of_six: float) -> None:
    colours = ["tab:green", *["tab:blue"] * (len(accuracies) - 1)]
    bars = axis.barh(list(accuracies), list(accuracies.values()), color=colours)
    axis.bar_label(bars, fmt="%.3f", label_type="center", color="white")
    axis.axvline(mean_of_six, color="black", linestyle="--")
    axis.invert_yaxis()
    axis.set(xlabel="accuracy", xlim=(0, 1.01))
    axis.set_title(f"Robustness; the dashed line is the mean of the six changes, {mean_of_six:.3f}", fontsize="medium")
    axis.set_axisbelow(True)
    axis.grid(axis="x", alpha=0.3)
