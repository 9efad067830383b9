"""Describe a retraining in a model card: the trials of the search, and the comparison with the start model."""

from __future__ import annotations

from collections.abc import Mapping

from model.offline.retrain import TRAINED_PARTS
from model.offline.retrain.comparison import PairedCounts
from model.offline.retrain.trials import SearchResult, Trial

_CHOICE = ("learning rate", "weight decay", "label smoothing", "dropout")
_COLUMNS = ("trial", "epochs", "trained", *_CHOICE, "accuracy", "accuracy, changed", "score")


def describe_retraining(budget_minutes: float, found: SearchResult, comparison: PairedCounts) -> str:
    """Return the section as Markdown."""
    rows = "\n".join(_format_trial(trial) for trial in found.trials)
    total = comparison.images
    return f"""## Retraining
Hyperband (Li et al., 2018) from Keras Tuner made {_count(len(found.trials), "trial")}; the whole run had a budget of
{budget_minutes:g} minutes. A trial trains the head, or the last block and the head, on stored features of the layers
below. The score is the mean of the log losses on clean and on changed validation images; less is better. The final fit,
with the hyper-parameters of the first row, began with the start model again.

{_make_header()}
{rows}
| start model | | | | | | | {_format_results(found.start)} |

On the {total} test images, which influenced no choice:

| model | correct | accuracy | only this model is correct |
|---|---|---|---|
| start | {_format_correct(comparison.start_correct, total)} | {comparison.only_start} |
| candidate | {_format_correct(comparison.candidate_correct, total)} | {comparison.only_candidate} |
"""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _make_header() -> str:
    return "| " + " | ".join(_COLUMNS) + " |\n" + "|---" * len(_COLUMNS) + "|"


def _format_correct(correct: int, total: int) -> str:
    return f"{correct} | {correct / total:.4f}"


def _format_trial(trial: Trial) -> str:
    choice = trial.choice
    cells = (
        trial.name,
        str(trial.epochs),
        TRAINED_PARTS[choice.trained_from],
        f"{choice.learning_rate:.2g}",
        f"{choice.weight_decay:.2g}",
        f"{choice.label_smoothing:g}",
        f"{choice.dropout:g}",
        _format_results(trial.results),
    )
    return "| " + " | ".join(cells) + " |"


def _format_results(results: Mapping[str, float]) -> str:
    return " | ".join(f"{results[name]:.4f}" for name in ("val_accuracy", "val_changed_accuracy", "val_score"))
