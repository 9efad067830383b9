"""The tables of `atalaya models quality`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import typer

from api.commands.output import format_count, format_interval, print_table, print_wrapped
from model.quality.results import MIN_CLASS_LABELS, ClassQuality, VersionQuality

_NOTE = (
    "In brackets: the 95 % confidence interval. Accuracy and ECE are of the labelled images; the estimate is of all of "
    "them, from the confidence alone."
)


def print_quality(model: str, since: datetime | None, versions: Sequence[VersionQuality]) -> None:
    """Print a row for each version, and a row for each of their classes that has enough labels."""
    typer.echo(f"{model}, predictions since {since:%Y-%m-%d %H:%M} UTC" if since else f"{model}, all predictions")
    print_table(
        ("version", "images", "labelled", "accuracy %", "ECE", "estimate %"),
        [_format_version(each) for each in versions],
    )
    print_wrapped(_NOTE)
    for each in versions:
        if each.abstained:
            times = format_count(each.abstained, "more time; this is", "more times; these are")
            typer.echo(f"Version {each.version} abstained {times} left out.")
        _print_classes(each)


def _print_classes(version: VersionQuality) -> None:
    if version.classes:
        typer.echo(f"\nVersion {version.version} by true class")
        print_table(
            ("class", "labelled", "recognised %", "most often taken for"),
            [_format_class(each) for each in version.classes],
        )
    if version.few_labels:
        few = ", ".join(f"{name} {n}" for name, n in version.few_labels.items())
        print_wrapped(f"Fewer than {MIN_CLASS_LABELS} labels in version {version.version}: {few}")


def _format_version(version: VersionQuality) -> tuple[str, ...]:
    return (
        version.version,
        str(version.predictions),
        str(version.labelled),
        format_interval(version.accuracy),
        "" if version.ece is None else f"{version.ece:.3f}",
        format_interval(version.estimated_accuracy),
    )


def _format_class(result: ClassQuality) -> tuple[str, ...]:
    mistakes = [f"{each.predicted} {format_interval(each.share)}" for each in result.confusions[:2]]
    return result.label, str(result.labelled), format_interval(result.recall), ", ".join(mistakes)
