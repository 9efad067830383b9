"""The tables of `atalaya evaluate`."""

from __future__ import annotations

from collections.abc import Mapping

from api.commands.output import print_table
from model.offline.changes import CLEAN, SIX_CHANGES
from model.offline.confidence_results import AbstentionResults
from model.offline.evaluate import Evaluation, average_six_changes

_HEADERS = {"ece": "ECE"}


def print_evaluation(model: str, evaluation: Evaluation) -> None:
    """Print the results of a model on the images as they are."""
    served, raw = evaluation.served, evaluation.raw
    print_table(
        ("model", "images", "accuracy", "macro F1"),
        [(model, str(served.n), _format(served.accuracy), _format(served.macro_f1))],
    )
    rows = [("raw", raw), (f"calibrated, temperature {evaluation.temperature:.3f}", served)]
    print_table(
        ("probabilities", "confidence", "log loss", "ECE"),
        [(name, *map(_format, (results.confidence, results.loss, results.ece))) for name, results in rows],
    )
    if evaluation.abstention is not None:
        _print_abstention(evaluation.abstention, served.n)
    if evaluation.sets is not None:
        sets = evaluation.sets
        print_table(
            ("prediction sets for", "coverage", "mean size"),
            [(f"{sets.wanted:g}", _format(sets.coverage), f"{sets.mean_size:.2f}")],
        )


def print_robustness(evaluations: Mapping[str, Evaluation]) -> None:
    """Print the results under each change, and after the six changes their mean."""
    rows = {name: each.summarise() for name, each in evaluations.items()}
    names = [CLEAN, *SIX_CHANGES]
    ordered = {
        **{name: rows[name] for name in names},
        "mean of the six changes": average_six_changes(evaluations),
        **{name: row for name, row in rows.items() if name not in names},
    }
    columns = [name for name in rows[CLEAN] if name != "ece_raw"]
    print_table(
        ("image", *(_HEADERS.get(name, name) for name in columns)),
        [(name, *(_format(row[column]) for column in columns)) for name, row in ordered.items()],
    )


def _print_abstention(results: AbstentionResults, n: int) -> None:
    print_table(
        ("outcome", "images", "share", "accuracy"),
        [
            ("predicted", *_format_share(1 - results.share, n), _format(results.selective_accuracy)),
            *((f"abstained: {reason}", *_format_share(share, n), "") for reason, share in results.reasons.items()),
        ],
    )


def _format_share(share: float, n: int) -> tuple[str, str]:
    return str(round(share * n)), _format(share)


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
