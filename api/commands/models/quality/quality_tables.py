"""The tables of `atalaya models quality`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from textwrap import fill

import typer

from api.commands.output import format_count, print_table
from model.quality.intervals import Interval
from model.quality.results import MIN_CLASS_LABELS, ClassQuality, VersionQuality

_WIDTH = 80
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
    typer.echo(fill(_NOTE, _WIDTH))
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
        typer.echo(fill(f"Fewer than {MIN_CLASS_LABELS} labels in version {version.version}: {few}", _WIDTH))


def _format_version(version: VersionQuality) -> tuple[str, ...]:
    return (
        version.version,
        str(version.predictions),
        str(version.labelled),
        _format_interval(version.accuracy),
        "" if version.ece is None else f"{version.ece:.3f}",
        _format_interval(version.estimated_accuracy),
    )


def _format_class(result: ClassQuality) -> tuple[str, ...]:
    mistakes = [f"{each.predicted} {_format_interval(each.share)}" for each in result.confusions[:2]]
    return result.label, str(result.labelled), _format_interval(result.recall), ", ".join(mistakes)


def _format_interval(interval: Interval | None) -> str:
    """Format an estimate in percent with its interval, such as 93.0 (88.6-95.8)."""
    if interval is None:
        return ""
    value, lower, upper = (f"{100 * share:.1f}" for share in (interval.value, interval.lower, interval.upper))
    return f"{value} ({lower}-{upper})"
