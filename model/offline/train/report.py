"""What a run leaves for people: figures as JSON, a model card, the curves and the confusion matrix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np


def write_report(out: Path, summary: dict[str, Any], history: list[dict[str, float]], classes: Sequence[str]) -> None:
    """Write metrics.json, MODEL_CARD.md, curves.png and confusion.png into `out`."""
    (out / "metrics.json").write_text(json.dumps({"classes": list(classes), **summary}, indent=1) + "\n")
    (out / "MODEL_CARD.md").write_text(model_card(summary, classes))
    judged = "test" if "test" in summary else "validation"
    _plot_curves(out / "curves.png", history, summary["best_epoch"])
    _plot_confusion(out / "confusion.png", np.asarray(summary[judged]["confusion"]), classes, judged)


def model_card(summary: dict[str, Any], classes: Sequence[str]) -> str:
    """The card as Markdown, in the order of Mitchell et al., "Model Cards for Model Reporting" (2019)."""
    images, init, options = summary["data"]["images"], summary["init"], summary["options"]
    rows = "\n".join(_figure_row(name, summary[name]) for name in ("validation", "test") if name in summary)
    judged = summary.get("test", summary["validation"])
    weakest = sorted(judged["per_class"].items(), key=lambda item: float(item[1]["f1"]))[:5]
    weak_rows = "\n".join(
        f"| {name} | {results['precision']:.3f} | {results['recall']:.3f} | {results['f1']:.3f} |"
        for name, results in weakest
    )
    tools = ", ".join(f"{name} {version}" for name, version in summary["tools"].items())
    return f"""# Model card: EfficientNetB0, land use from above

## What it is
EfficientNetB0 with global average pooling, a dense ReLU layer of 256, dropout and a softmax over {len(classes)}
classes. Input: 256x256 RGB, values 0..255. The whole network was fine-tuned.

- Starting weights: `{init["name"]}`{f" (SHA-256 `{init['sha256']}`)" if "sha256" in init else ""}.
- {init["source"]}
- Training: {summary["epochs_run"]} epochs (best: {summary["best_epoch"]}), batch {options["batch_size"]},
  AdamW with warm-up and cosine decay to 0 from {options["peak_learning_rate"]}, label smoothing 0.1,
  seed {options["seed"]}; flips, quarter turns, zoom, light and saturation changes. Made with {tools}.

## What it is for
Naming the dominant land use of one aerial scene of about 77x77 m (256 pixels at 0.3 m). Other ground resolutions,
oblique views, satellites' coarser pixels and photographs from the ground are outside of what it was trained on: it
still answers with one of its classes.

## Data
UC Merced Land Use: {images["training"]} images for training, {images["validation"]} for validation
(cut from the training images, stratified, fixed seed), {images["test"]} for the final figure.
Y. Yang and S. Newsam, "Bag-of-Visual-Words and Spatial Extensions for Land-Use Classification",
ACM SIGSPATIAL GIS 2010; imagery from the USGS National Map Urban Area Imagery collection,
all of it from cities and country of the United States.

## Figures
The epoch was chosen by the validation loss. The test images were read once, after that choice.

| split | images | accuracy | macro F1 | loss | ECE |
|---|---|---|---|---|---|
{rows}

The five classes with the lowest F1:

| class | precision | recall | F1 |
|---|---|---|---|
{weak_rows}

Label smoothing leaves the probabilities less sure than the model is right; ECE shows by how much.

## Classes
{", ".join(classes)}.
"""


def _figure_row(name: str, results: dict[str, Any]) -> str:
    values = " | ".join(f"{results[key]:.4f}" for key in ("accuracy", "macro_f1", "loss", "ece"))
    return f"| {name} | {results['n']} | {values} |"


def _plot_curves(path: Path, history: list[dict[str, float]], best_epoch: int) -> None:
    epochs = range(1, len(history) + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, key, title in ((left, "loss", "Loss (label smoothing 0.1)"), (right, "accuracy", "Accuracy")):
        axis.plot(epochs, [row[key] for row in history], marker="o", label="training, augmented")
        axis.plot(epochs, [row[f"val_{key}"] for row in history], marker="o", label="validation")
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
