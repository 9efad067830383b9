"""What the metrics show of a trial."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry

from api.services.canary.reports import CanaryReports
from model.canary.contest import Contest
from model.canary.evidence import Evidence
from model.canary.judge import judge
from monitoring.metrics import Metrics

FIRST, SECOND = (
    Contest("land", version, digest * 32, "1.0", "cd" * 32) for version, digest in (("1.1", "ab"), ("1.2", "ef"))
)


def test_only_the_evidence_of_the_current_trial_is_shown() -> None:
    """The evidence of a trial is not shown after its end, nor in a later trial when a label for the first arrives."""
    registry = CollectorRegistry()
    reports, judgement = CanaryReports(Metrics(registry)), judge(Evidence())

    def is_shown() -> bool:
        value = registry.get_sample_value("atalaya_canary_log_e", {"metric": "latency", "direction": "promote"})
        return value is not None and not math.isnan(value)

    reports.on_start(FIRST)
    reports.on_judgement(FIRST.id, judgement)
    assert is_shown()
    reports.on_end(FIRST)
    assert not is_shown()
    reports.on_judgement(FIRST.id, judgement)
    reports.on_start(SECOND)
    reports.on_judgement(FIRST.id, judgement)
    assert not is_shown()
    reports.on_judgement(SECOND.id, judgement)
    assert is_shown()
