"""The model card of a run, in the order of Mitchell et al., "Model Cards for Model Reporting" (2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_INTENDED_USE = """## Intended use
Classifying the dominant land use of one aerial scene of about 77x77 m (256 pixels at 0.3 m). The training data contains
no other ground resolutions, oblique views, coarser satellite images or photographs from the ground. For such images the
model still returns one of its classes.
"""


def make_model_card(summary: dict[str, Any], classes: Sequence[str]) -> str:
    """Return the card as Markdown. `summary` is the content of metrics.json."""
    sections = (
        "# Model card: EfficientNetB0 for land use in aerial images\n",
        _describe_model(summary, len(classes)),
        _INTENDED_USE,
        _describe_data(summary["data"]["images"]),
        _describe_results(summary),
        f"## Classes\n{', '.join(classes)}.\n",
    )
    return "\n".join(sections)


def _describe_model(summary: dict[str, Any], classes: int) -> str:
    init, options = summary["init"], summary["options"]
    size = f"{summary['input']['width']}x{summary['input']['height']}"
    digest = f" (SHA-256 `{init['sha256']}`)" if "sha256" in init else ""
    tools = ", ".join(f"{name} {version}" for name, version in summary["tools"].items())
    return f"""## Model
EfficientNetB0 with global average pooling, a dense ReLU layer of 256 units, dropout and a softmax over {classes}
classes. Input: {size} RGB, values 0..255. All layers were fine-tuned.

- Starting weights: `{init["name"]}`{digest}.
- {init["source"]}
- Training: {summary["epochs_run"]} epochs (best: {summary["best_epoch"]}), batch size {options["batch_size"]},
  AdamW with warm-up and cosine decay to 0 from {options["peak_learning_rate"]}, label smoothing 0.05,
  seed {options["seed"]}.
- Tools: {tools}.
"""


def _describe_data(images: dict[str, int]) -> str:
    return f"""## Data
UC Merced Land Use: {images["training"]} images for training, {images["validation"]} for validation
(split from the training images by class, with a fixed seed), {images["test"]} for the final test.
Y. Yang and S. Newsam, "Bag-of-Visual-Words and Spatial Extensions for Land-Use Classification",
ACM SIGSPATIAL GIS 2010; imagery from the USGS National Map Urban Area Imagery collection,
all of it from urban and rural areas of the United States.
"""


def _describe_results(summary: dict[str, Any]) -> str:
    rows = "\n".join(_format_split(name, summary[name]) for name in ("validation", "test") if name in summary)
    per_class = summary.get("test", summary["validation"])["per_class"]
    weakest = sorted(per_class.items(), key=lambda item: float(item[1]["f1"]))[:5]
    weakest_rows = "\n".join(_format_class(name, results) for name, results in weakest)
    return f"""## Results
The epoch with the lowest validation loss was chosen. The test images were read once, after that choice.

| split | images | accuracy | macro F1 | loss | ECE |
|---|---|---|---|---|---|
{rows}

The five classes with the lowest F1:

| class | precision | recall | F1 |
|---|---|---|---|
{weakest_rows}

Label smoothing makes the model underconfident: its probabilities are lower than its accuracy. ECE measures the gap.
"""


def _format_split(name: str, results: dict[str, Any]) -> str:
    values = " | ".join(f"{results[key]:.4f}" for key in ("accuracy", "macro_f1", "loss", "ece"))
    return f"| {name} | {results['n']} | {values} |"


def _format_class(name: str, results: dict[str, Any]) -> str:
    return f"| {name} | {results['precision']:.3f} | {results['recall']:.3f} | {results['f1']:.3f} |"
