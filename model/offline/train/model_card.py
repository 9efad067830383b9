"""The model card of a run, in the order of Mitchell et al., "Model Cards for Model Reporting" (2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model.offline.changes import SIX_CHANGES

_INTENDED_USE = """## Intended use
Classifying the dominant land use of one aerial scene of about 77x77 m (256 pixels at 0.3 m). Training changes light,
colour, sharpness and ground resolution (0.15 to 0.67 m per pixel). Oblique views, coarser satellite images and
photographs from the ground are not among its training images: the section on abstention says how many of those are
recognised.
"""

_PARTS = {
    "light": "exposure x0.5 to x1.8, gamma and contrast",
    "colour": "white balance of +-20 % per channel and saturation x0 to x1.7, one image in ten grey",
    "scale": "crops down to half of each side, and scenes shrunk to 0.45 with mirrored borders",
    "noise": "blur, Gaussian noise with a deviation of up to 20, and JPEG compression of quality 15 to 70",
    "mixing": "CutMix (Yun et al., 2019) and mixup (Zhang et al., 2018) in four batches of ten",
    "averaging": "each epoch ends with, and the next starts from, the moving average of the weights",
}


def make_model_card(summary: dict[str, Any], classes: Sequence[str]) -> str:
    """Return the card as Markdown. `summary` is the content of metrics.json."""
    sections = [
        "# Model card: EfficientNetB0 for land use in aerial images\n",
        _describe_model(summary, len(classes)),
        _INTENDED_USE,
        _describe_data(summary["data"]["images"]),
        _describe_results(summary),
        *([_describe_robustness(summary["robustness"])] if "robustness" in summary else []),
        f"## Classes\n{', '.join(classes)}.\n",
    ]
    return "\n".join(sections)


def _describe_model(summary: dict[str, Any], classes: int) -> str:
    init, options = summary["init"], summary["options"]
    size = f"{summary['input']['width']}x{summary['input']['height']}"
    digest = f" (SHA-256 `{init['sha256']}`)" if "sha256" in init else ""
    tools = ", ".join(f"{name} {version}" for name, version in summary["tools"].items())
    parts = "\n".join(f"  - {name}: {text}" for name, text in _PARTS.items() if name not in options["without"])
    return f"""## Model
EfficientNetB0 with global average pooling, a dense ReLU layer of 256 units, dropout and a softmax over {classes}
classes. Input: {size} RGB, values 0..255. {_describe_trained_layers(summary.get("trained_from"))}

- Starting weights: `{init["name"]}`{digest}.
- {init["source"]}
- Training: {describe_stages(options["stages"])} (best epoch: {summary["best_epoch"]}), batch size
  {options["batch_size"]}, AdamW with warm-up and cosine decay from {options["peak_learning_rate"]:.3g}, label
  smoothing {options["label_smoothing"]:g}, seed {options["seed"]}. One image in four is only turned and
  flipped; the others are changed at random:
{parts}
- Tools: {tools}.
"""


def _describe_trained_layers(first: str | None) -> str:
    return "All layers were fine-tuned." if first is None else f"The layers from `{first}` on were fine-tuned."


def describe_stages(stages: list[dict[str, int]]) -> str:
    """Return the stages in words."""
    return ", then ".join(f"{stage['epochs']} epochs at {stage['size']} pixels" for stage in stages)


def _describe_data(images: dict[str, int]) -> str:
    extra = ""
    if images.get("extra"):
        extra = f"""
Another {images["extra"]} training images come from another camera. They are always changed, so that the model learns
their classes and not their camera.
"""
    return f"""## Data
UC Merced Land Use: {images["training"]} images for training, {images["validation"]} for validation
(split from the training images by class, with a fixed seed), {images["test"]} for the final test.
Y. Yang and S. Newsam, "Bag-of-Visual-Words and Spatial Extensions for Land-Use Classification",
ACM SIGSPATIAL GIS 2010; imagery from the USGS National Map Urban Area Imagery collection,
all of it from urban and rural areas of the United States.
{extra}"""


def _describe_results(summary: dict[str, Any]) -> str:
    rows = "\n".join(_format_split(name, summary[name]) for name in ("validation", "test") if name in summary)
    per_class = summary.get("test", summary["validation"])["per_class"]
    weakest = sorted(per_class.items(), key=lambda item: float(item[1]["f1"]))[:5]
    weakest_rows = "\n".join(_format_class(name, results) for name, results in weakest)
    return f"""## Results
The epoch with the lowest log loss on clean and changed validation images was chosen. The test images were read once,
after that choice. These are the results of the raw probabilities.

| split | images | accuracy | macro F1 | loss | ECE |
|---|---|---|---|---|---|
{rows}

The five classes with the lowest F1:

| class | precision | recall | F1 |
|---|---|---|---|
{weakest_rows}

ECE is the expected calibration error, in 15 bins of equal mass.
"""


def _describe_robustness(robustness: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(robustness.values())))
    rows = [(name, *(accuracy[name] for accuracy in robustness.values())) for name in names]
    rows.append(
        ("**six**", *(float(np.mean([accuracy[name] for name in SIX_CHANGES])) for accuracy in robustness.values()))
    )
    lines = ["| " + " | ".join(("change", *robustness)) + " |", "|---" * (len(robustness) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |" for name, *values in rows]
    table = "\n".join(lines)
    return f"""## Robustness
Accuracy on images that were changed as `atalaya evaluate --robustness` does. "six" is the mean of the first six
changes.

{table}
"""


def _format_split(name: str, results: dict[str, Any]) -> str:
    values = " | ".join(f"{results[key]:.4f}" for key in ("accuracy", "macro_f1", "loss", "ece"))
    return f"| {name} | {results['n']} | {values} |"


def _format_class(name: str, results: dict[str, Any]) -> str:
    return f"| {name} | {results['precision']:.3f} | {results['recall']:.3f} | {results['f1']:.3f} |"
