"""Everything that a manifest says about the confidence of its model."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.confidence.abstention import AbstentionRules
from model.confidence.prediction_sets import ConformalScores


@dataclass(frozen=True, slots=True)
class ConfidenceModel:
    """The defaults are those of a model without this information: probabilities as they are, no abstention, no sets."""

    temperature: float = 1.0
    abstention: AbstentionRules = field(default_factory=AbstentionRules)
    sets: ConformalScores | None = None


DEFAULT_CONFIDENCE = ConfidenceModel()
