"""What is known of a trained model, from the metrics.json beside its `.keras` file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from model.classes import UC_MERCED_CLASSES
from model.errors import ExportRefused

_FIGURES = ("n", "accuracy", "macro_f1", "loss", "ece")


@dataclass(frozen=True, slots=True)
class Record:
    """The class names in the order of the outputs, and whatever of data, figures and tools was recorded.

    `saved_by` is the version of Keras that wrote the file, as the file itself states it.
    """

    classes: tuple[str, ...]
    saved_by: str
    data: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)


def read_record(model: Path, outputs: int) -> Record:
    """Read metrics.json beside `model`; without it, 21 outputs are taken for UC Merced's. Raises ExportRefused."""
    path = model.with_name("metrics.json")
    if not path.exists():
        return Record(_assumed_classes(path, outputs), _saved_by(model))
    metrics = _read_object(path)
    return Record(
        classes=_named_classes(path, metrics.get("classes"), outputs),
        saved_by=_saved_by(model),
        data=metrics.get("data", {}),
        results={
            split: {name: metrics[split][name] for name in _FIGURES if name in metrics[split]}
            for split in ("validation", "test")
            if split in metrics
        },
        tools=metrics.get("tools", {}),
    )


def short_card(name: str, record: Record) -> str:
    """A model card for a model that came without one, as Markdown."""
    return f"""# Model card: {name}

This model was imported from a `.keras` file (Keras {record.saved_by}) that came without a model card.
What it was trained on, how, and how well it does are not known here: measure it with `atalaya evaluate`, and
describe it in a MODEL_CARD.md beside the `.keras` file before the next import.

Input: 256x256 RGB, values 0..255. Output: a softmax over {len(record.classes)} classes.

## Classes
{", ".join(record.classes)}.
"""


def _assumed_classes(path: Path, outputs: int) -> tuple[str, ...]:
    if outputs != len(UC_MERCED_CLASSES):
        raise ExportRefused(f'The names of {outputs} classes are not known. Write "classes": [...] into {path}.')
    return UC_MERCED_CLASSES


def _named_classes(path: Path, classes: Any, outputs: int) -> tuple[str, ...]:
    named = isinstance(classes, list) and all(isinstance(name, str) and name for name in classes)
    if not named or len(set(classes)) != len(classes) or len(classes) != outputs:
        raise ExportRefused(f'"classes" in {path} must list {outputs} different names, one for each output.')
    return tuple(classes)


def _saved_by(model: Path) -> str:
    with ZipFile(model) as archive:
        return str(json.loads(archive.read("metadata.json"))["keras_version"])


def _read_object(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text())
    except ValueError as error:
        raise ExportRefused(f"{path} is not JSON: {error}.") from error
    if not isinstance(metrics, dict):
        raise ExportRefused(f'{path} must hold a JSON object with "classes".')
    return metrics
