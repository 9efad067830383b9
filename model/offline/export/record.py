"""Read the record of a model's training from the metrics.json next to its `.keras` file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from msgspec import Struct, field

from model.classes import UC_MERCED_CLASSES
from model.errors import ExportRefused
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec

_RESULT_NAMES = ("n", "accuracy", "macro_f1", "loss", "ece")


class TrainingRecord(Struct, frozen=True):
    """The class names in output order, the input, and the data set, results and tool versions if they were recorded.

    `saved_by` is the version of Keras that wrote the file, read from the file itself. `options` are those of the run.
    """

    classes: tuple[str, ...]
    saved_by: str
    input_spec: InputSpec = DEFAULT_INPUT
    data: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def read_record(model: Path, outputs: int, default_classes: tuple[str, ...] = UC_MERCED_CLASSES) -> TrainingRecord:
    """Read metrics.json next to `model`, a .keras file with this number of outputs.

    Without metrics.json, a model with as many outputs as `default_classes` gets those names. If the input is not
    recorded, it is the default one. Raises ExportRefused.
    """
    path = model.with_name("metrics.json")
    saved_by = _read_keras_version(model)
    if not path.exists():
        if outputs != len(default_classes):
            raise ExportRefused(f'The names of the {outputs} classes are unknown. Write "classes": [...] into {path}.')
        return TrainingRecord(default_classes, saved_by)
    metrics = _read_object(path)
    return TrainingRecord(
        classes=_check_classes(path, metrics.get("classes"), outputs),
        saved_by=saved_by,
        input_spec=_parse_input(path, metrics.get("input", {})),
        data=metrics.get("data", {}),
        results={
            split: {name: metrics[split][name] for name in _RESULT_NAMES if name in metrics[split]}
            for split in ("validation", "test")
            if split in metrics
        },
        tools=metrics.get("tools", {}),
        options=metrics.get("options", {}),
    )


def make_short_card(name: str, record: TrainingRecord) -> str:
    """Return a model card, as Markdown, for a model that came without one."""
    size = f"{record.input_spec.width}x{record.input_spec.height}"
    return f"""# Model card: {name}

This model was imported from a `.keras` file (Keras {record.saved_by}) that came without a model card.
Its training data, training method and accuracy are not known. Measure it with `atalaya evaluate`, and describe it in a
MODEL_CARD.md next to the `.keras` file before the next import.

Input: {size} RGB, values 0..255. Output: a softmax over {len(record.classes)} classes.

## Classes
{", ".join(record.classes)}.
"""


def _check_classes(path: Path, classes: Any, outputs: int) -> tuple[str, ...]:
    is_list_of_names = isinstance(classes, list) and all(isinstance(name, str) and name for name in classes)
    if not is_list_of_names or len(set(classes)) != len(classes) or len(classes) != outputs:
        raise ExportRefused(f'"classes" in {path} must list {outputs} different names, one for each output.')
    return tuple(classes)


def _parse_input(path: Path, members: Any) -> InputSpec:
    try:
        return InputSpec(**members)
    except (TypeError, ValueError) as error:
        raise ExportRefused(f'"input" in {path} is not a model input: {error}.') from error


def _read_keras_version(model: Path) -> str:
    try:
        with ZipFile(model) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (OSError, BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ExportRefused(f"{model} is not a file that Keras saved with model.save('NAME.keras').") from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ExportRefused(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(metrics, dict):
        raise ExportRefused(f'{path} must contain a JSON object with "classes".')
    return metrics
