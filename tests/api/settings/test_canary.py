"""The canary settings: the judge's limits."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from api.settings.quality.canary import CanarySettings
from model.canary.evidence import Metric
from model.canary.judge import LIMITS, Limit


def test_limits_replace_those_of_the_judge() -> None:
    """Limits in the settings replace the judge's own for the metrics that they name, and for no others."""
    rules = CanarySettings(limits='{"disagreement": [0.1, 0.15]}').rules
    assert rules.limits[Metric.DISAGREEMENT] == Limit(0.1, 0.15)
    assert rules.limits[Metric.ACCURACY] == LIMITS[Metric.ACCURACY]


@pytest.mark.parametrize("limit", ["[0.2, 0.1]", "[0, 0.1]", "[0.5, 1]"])
def test_limits_outside_of_a_metric_are_rejected(limit: str) -> None:
    """The tolerated excess must not be above the margin, and both must be possible for the metric."""
    with pytest.raises(ValidationError, match="must map metrics to"):
        CanarySettings(limits=f'{{"disagreement": {limit}}}')
