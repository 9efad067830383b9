"""A canary by caller: two workers assign callers, pair requests and share one verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from model.canary.assignment import CallerAssignment
from model.canary.evidence import Evidence, Metric, Outcome, compare_on_different_images
from model.canary.judge import Finding, Judgement, MetricEvidence, Verdict, judge
from model.canary.pairing import Arm, Pairing

SERVED = Outcome(class_index=3, duration_s=0.02)
FAILED = Outcome(class_index=None, duration_s=0.02)
REQUESTS = 6000
RESTART_EVERY = 100


class Run(NamedTuple):
    """A canary until its verdict: how many requests it served, and how many pairs of them were compared."""

    judgement: Judgement
    requests: int
    pairs: int

    def find(self, metric: Metric) -> MetricEvidence:
        (found,) = [evidence for evidence in self.judgement.evidence if evidence.metric is metric]
        return found


def run_canary(fails: Callable[[Arm, int], float], share: float) -> Run:
    """Serve requests of 200 callers on two workers until the verdict.

    One worker restarts before every hundredth request: it keeps its evidence, and loses its unpaired request.
    `fails` gives the probability that a request fails on a model.
    """
    generator = np.random.default_rng(7)
    assignment = CallerAssignment(b"k" * 32, "1.2")
    pairings = [Pairing[Outcome](), Pairing[Outcome]()]
    evidence, judgement, pairs = [Evidence(), Evidence()], judge(Evidence()), 0
    for n in range(REQUESTS):
        if n % RESTART_EVERY == RESTART_EVERY - 1:
            evidence[0] = Evidence.from_document(json.loads(json.dumps(evidence[0].to_document())))
            pairings[0] = Pairing()
        worker = int(generator.integers(2))
        is_candidate = assignment.is_assigned(f"user-{generator.integers(200)}", share)
        arm = Arm.CANDIDATE if is_candidate else Arm.PRODUCTION
        pair = pairings[worker].add(arm, FAILED if generator.random() < fails(arm, n) else SERVED)
        if pair is None:
            continue
        pairs += 1
        evidence[worker] += compare_on_different_images(pair.candidate, pair.production)
        judgement = judge(evidence[0] + evidence[1])
        if judgement.verdict is not Verdict.HOLD:
            return Run(judgement, n, pairs)
    return Run(judgement, REQUESTS, pairs)


def test_workers_take_back_a_candidate_that_fails_for_its_callers() -> None:
    """Errors that two workers observe add up and take the candidate back, even if one of the workers restarts."""
    run = run_canary(lambda arm, _: 0.1 if arm is Arm.CANDIDATE else 0.001, share=0.3)
    assert run.judgement.verdict is Verdict.TAKE_BACK
    assert RESTART_EVERY < run.requests < 1500
    assert run.find(Metric.ERROR_RATE).tally.comparisons == run.pairs


def test_outage_of_both_models_does_not_take_back_the_candidate() -> None:
    """An outage in which half of all requests fail on both models does not take the candidate back."""
    run = run_canary(lambda _, n: 0.5 if 500 < n < 1500 else 0.0, share=0.3)
    assert run.judgement.verdict is Verdict.HOLD
    assert run.find(Metric.ERROR_RATE).tally.worse > 50
    assert run.find(Metric.ERROR_RATE).finding is not Finding.UNACCEPTABLE
