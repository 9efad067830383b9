"""Check whether a candidate can be compared with the model in production."""

from __future__ import annotations

from model.backends.base import Backend
from model.errors import CandidateNotComparable


def check_comparable(candidate: Backend, production: Backend) -> None:
    """Require the same input and classes, and all features that callers can request. Raises CandidateNotComparable."""
    tried, served = candidate.info, production.info
    reasons = {
        "takes another input": tried.input_spec != served.input_spec,
        "has other classes": tried.classes != served.classes,
        "cannot explain its predictions": candidate.head is None and production.head is not None,
        "makes no prediction sets": tried.confidence.sets is None and served.confidence.sets is not None,
    }
    differences = [reason for reason, is_true in reasons.items() if is_true]
    if differences:
        raise CandidateNotComparable(
            f"{tried.full_name} {' and '.join(differences)}, unlike {served.full_name} in production. "
            "Evaluate it offline, and promote it without a trial."
        )
