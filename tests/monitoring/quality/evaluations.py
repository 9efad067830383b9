"""Evaluations of the served model for tests."""

from __future__ import annotations

from typing import Any

from monitoring.chains.ids import new_id
from monitoring.quality.evaluations import EvaluationRecord


def make_evaluation(**changes: Any) -> EvaluationRecord:
    """Build an evaluation of 210 images without a reference; `changes` replace its fields."""
    values = {
        "id": new_id(),
        "at": 1_800_000_000,
        "model": "tiny",
        "version": "1.0",
        "digest": "ab" * 32,
        "data_digest": "cd" * 32,
        "n": 210,
        "accuracy": 0.97,
        "lower": 0.94,
        "upper": 0.99,
        "macro_f1": 0.96,
        "ece": 0.012,
        "correct": "/w==",
        "comparison": None,
        "is_loss": False,
    }
    return EvaluationRecord(**{**values, **changes})
