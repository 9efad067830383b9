"""The report of a run: results as JSON, a model card, the training curves, the confusion matrix and the robustness."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from model.offline.train.model_card import make_model_card


def write_report(out: Path, summary: dict[str, Any], history: list[dict[str, float]], classes: Sequence[str]) -> None:
    """Write metrics.json, MODEL_CARD.md, curves.png, confusion.png and, if measured, robustness.png to `out`."""
    (out / "metrics.json").write_text(json.dumps({"classes": list(classes), **summary}, indent=1) + "\n")
    (out / "MODEL_CARD.md").write_text(make_model_card(summary, classes))
    split = "test" if "test" in summary else "validation"
    _plot_curves(out / "curves.png", history, summary["best_epoch"])
    _plot_confusion(out / "confusion.png", np.asarray(summary[split]["confusion"]), classes, split)
    if "robustness" in summary:
        _plot_robustness(out / "robustness.png", summary["robustness"])


def _plot_robustness(path: Path, robustness: dict[str, dict[str, float]]) -> None:
    """Draw one bar for each change and split."""
    names = list(next(iter(robustness.values())))
    height = 0.8 / len(robustness)
    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    for number, (split, accuracy) in enumerate(robustness.items()):
        positions = np.arange(len(names)) + number * height
        bars = axis.barh(positions, [accuracy[name] for name in names], height, label=split)
        axis.bar_label(bars, fmt="%.3f", padding=3)
    axis.set_yticks(np.arange(len(names)) + 0.4 - height / 2, names)
    axis.invert_yaxis()
    axis.set(title="Accuracy under changes of the images", xlabel="accuracy", xlim=(0, 1.08))
    axis.legend(loc="lower left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_curves(path: Path, history: list[dict[str, float]], best_epoch: int) -> None:
    epochs = range(1, len(history) + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, key, title in ((left, "loss", "Loss"), (right, "accuracy", "Accuracy")):
        axis.plot(epochs, [row[key] for row in history], marker="o", label="training (augmented, smoothed labels)")
        axis.plot(epochs, [row[f"val_{key}"] for row in history], marker="o", label="validation")
        axis.plot(epochs, [row[f"val_changed_{key}"] for row in history], marker="o", label="changed validation")
        axis.axvline(best_epoch, color="grey", linestyle=":", label="chosen epoch")
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_confusion(path: Path, confusion: np.ndarray[Any, Any], classes: Sequence[str], split: str) -> None:
    figure, axis = plt.subplots(figsize=(9, 8), layout="constrained")
    axis.imshow(confusion, cmap="Blues")
    axis.set_xticks(range(len(classes)), classes, rotation=90)
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="predicted", ylabel="true", title=f"Confusion on the {split} images")
    for row, column in zip(*np.nonzero(confusion), strict=True):
        dark = confusion[row, column] > confusion.max() / 2
        axis.text(column, row, confusion[row, column], ha="center", va="center", color="white" if dark else "black")
    figure.savefig(path, dpi=110)
    plt.close(figure)
