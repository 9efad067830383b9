"""A canary by caller: two workers assign callers, pair requests and share one verdict."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from model.canary.assignment import CallerAssignment
from model.canary.evidence import Evidence, Metric, Outcome, compare_on_different_images
from model.canary.judge import Finding, Judgement, Verdict, judge
from model.canary.pairing import Arm, Pairing

SERVED = Outcome(class_index=3, duration_s=0.02)
FAILED = Outcome(class_index=None, duration_s=0.02)
REQUESTS = 6000


def run_canary(fails: Callable[[Arm, int], float], share: float) -> tuple[Judgement, int]:
    """Serve requests of 200 callers on two workers, one of which restarts; return the verdict and its request.

    `fails` gives the probability that a request fails on a model.
    """
    generator = np.random.default_rng(7)
    assignment = CallerAssignment(b"k" * 32, "1.2")
    pairings = [Pairing[Outcome](), Pairing[Outcome]()]
    evidence = [Evidence(), Evidence()]
    for n in range(REQUESTS):
        worker = int(generator.integers(2))
        is_candidate = assignment.is_assigned(f"user-{generator.integers(200)}", share)
        arm = Arm.CANDIDATE if is_candidate else Arm.PRODUCTION
        pair = pairings[worker].add(arm, FAILED if generator.random() < fails(arm, n) else SERVED)
        if pair is None:
            continue
        evidence[worker] += compare_on_different_images(pair.candidate, pair.production)
        judgement = judge(evidence[0] + evidence[1])
        if judgement.verdict is not Verdict.HOLD:
            return judgement, n
        if n % 100 == 0:
            evidence[0], pairings[0] = (
                Evidence.from_document(json.loads(json.dumps(evidence[0].to_document()))),
                Pairing(),
            )
    return judge(evidence[0] + evidence[1]), REQUESTS


def test_workers_take_back_a_candidate_that_fails_for_its_callers() -> None:
    """Errors that two workers observe add up and take the candidate back, even if one of the workers restarts."""
    judgement, n = run_canary(lambda arm, _: 0.1 if arm is Arm.CANDIDATE else 0.001, share=0.3)
    assert judgement.verdict is Verdict.TAKE_BACK
    assert n < 1500


def test_outage_of_both_models_does_not_take_back_the_candidate() -> None:
    """An outage in which half of all requests fail on both models does not take the candidate back."""
    judgement, _ = run_canary(lambda _, n: 0.5 if 500 < n < 1500 else 0.0, share=0.3)
    assert judgement.verdict is Verdict.HOLD
    found = {evidence.metric: evidence for evidence in judgement.evidence}
    assert found[Metric.ERROR_RATE].tally.worse > 50
    assert found[Metric.ERROR_RATE].finding is not Finding.UNACCEPTABLE
