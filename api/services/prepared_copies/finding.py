"""Where the prepared copies are, and the metrics that show whether they are used."""

from __future__ import annotations

import structlog

from api.settings import Settings
from model.backends.base import Backend, Origin
from model.backends.prepared.copies import PreparedCopies, derive_key
from monitoring.metrics import Metrics

_OUTCOMES = ("done", "failed")

log = structlog.get_logger("atalaya.preparation")


def find_copies(settings: Settings) -> PreparedCopies | None:
    """Return where the prepared copies are; None with MODEL__PREPARE=false or without LEDGER__SIGNING_KEY.

    The key that authenticates their records is derived from the ledger key, so that an attacker who can write to their
    folder, but not read the gateway's secrets, cannot forge a copy.
    """
    if not settings.model.prepare or settings.ledger.signing_key is None:
        return None
    return PreparedCopies(settings.model.prepared_folder, derive_key(settings.ledger_key()))


def show_counters(metrics: Metrics) -> None:
    """Expose every outcome from the start: Prometheus sees no increase in a series that begins above 0."""
    for origin in Origin:
        metrics.weights_loaded.labels(origin)
    for outcome in _OUTCOMES:
        metrics.preparations.labels(outcome)


def report_origin(backend: Backend, metrics: Metrics) -> None:
    """Count and log where the model's weights were loaded from, if the back end uses prepared copies."""
    weights = backend.weights
    if weights is None:
        return
    metrics.weights_loaded.labels(weights.origin).inc()
    if weights.origin is Origin.REJECTED:
        log.warning("prepared_copy_rejected", reason=weights.reason, policy="the artefact is served")
    else:
        log.info("weights_loaded", origin=weights.origin)
