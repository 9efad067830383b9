"""The settings CANARY__…"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from api.settings.fields import SettingsGroup, parse_json
from model.canary.assignment import Mode
from model.canary.evidence import MEANS, Metric
from model.canary.judge import LIMITS, JudgeRules, Limit
from model.registry.errors import InvalidName
from model.registry.state import check_name


class VerdictPolicy(StrEnum):
    """Whether the gateway itself moves aliases when a verdict is reached."""

    ADVISE = "advise"
    ACT = "act"


def _check_alias(value: str) -> str:
    try:
        return check_name(value)
    except InvalidName:
        raise ValueError("must be the name of an alias, such as candidate") from None


class CanarySettings(SettingsGroup, title="Candidates"):
    """For a model of a registry: [trying a candidate](models/candidate.md)."""

    mode: Mode = Field(
        Mode.SHADOW,
        description="What the candidate gets: `shadow` copies of requests, after their responses, while there is spare "
        "capacity; `canary` the requests of some callers, who get its responses; `off` nothing.",
    )
    alias: Annotated[str, AfterValidator(_check_alias)] = Field(
        "candidate", description="The alias that points to the candidate."
    )
    share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="The share of requests (`shadow`) or of callers (`canary`) that the candidate gets.",
    )
    verdict: VerdictPolicy = Field(
        VerdictPolicy.ADVISE,
        description="`advise`: a verdict is recorded and logged. `act`: the gateway also promotes the candidate or "
        "takes it back.",
    )
    limits: Mapping[Metric, tuple[float, float]] = Field(
        default_factory=dict,
        description="[Limits of the verdict](models/candidate.md) that differ from the defaults: "
        '`{"disagreement": [TOLERATED, MARGIN]}`, also `error_rate`, `latency` and `accuracy`.',
    )

    _parse_limits = field_validator("limits", mode="before")(parse_json)

    @field_validator("limits")
    @classmethod
    def _check_limits(cls, value: Mapping[Metric, tuple[float, float]]) -> Mapping[Metric, tuple[float, float]]:
        for metric, (tolerated, margin) in value.items():
            if not MEANS[metric].lowest < tolerated <= margin < MEANS[metric].highest:
                raise ValueError(
                    "must map metrics to [TOLERATED, MARGIN] with 0 <= TOLERATED <= MARGIN < 1, such as "
                    '{"disagreement": [0.1, 0.15]}'
                )
        return value

    @property
    def rules(self) -> JudgeRules:
        """The rules of the judge: the limits in the settings, and its defaults for other metrics."""
        changed = {metric: Limit(*limit) for metric, limit in self.limits.items()}
        return JudgeRules({**LIMITS, **changed})
