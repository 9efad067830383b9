"""What the metrics show of a trial."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry

from api.services.canary.reports import CanaryReports
from model.canary.contest import Contest
from model.canary.evidence import Evidence
from model.canary.judge import judge
from monitoring.metrics import Metrics

CONTEST = Contest("land", "1.1", "ab" * 32, "1.0", "cd" * 32)


def test_the_evidence_of_a_trial_ends_with_it() -> None:
    """After a trial, its evidence is not shown any more, even if a judgement on it arrives late."""
    registry = CollectorRegistry()
    reports, judgement = CanaryReports(Metrics(registry)), judge(Evidence())

    def read() -> float | None:
        return registry.get_sample_value("atalaya_canary_log_e", {"metric": "latency", "direction": "promote"})

    reports.on_start(CONTEST)
    reports.on_judgement(judgement)
    assert read() == 0
    reports.on_end(CONTEST)
    assert math.isnan(read() or 0)
    reports.on_judgement(judgement)
    assert math.isnan(read() or 0)
