"""Sums over the confidence of recorded predictions, by version and hour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import Connection

from monitoring.ledger.entries import sanitize_name
from monitoring.ledger.tables import prediction_sums
from monitoring.quality.following import RecordedRequest, WriteSums
from storage.engine import add_to_row

Key = tuple[str, str, str]
"""Model, version and hour."""


class _Sums(Struct):
    predictions: int = 0
    confidence: float = 0.0
    variance: float = 0.0
    abstained: int = 0


def add_confidence_sums(_connection: Connection, requests: Sequence[RecordedRequest]) -> WriteSums:
    """Compute what requests add to the table `prediction_sums`."""
    return partial(_write, _sum_up(requests))


def _write(sums_by_key: Mapping[Key, _Sums], connection: Connection) -> None:
    for key in sorted(sums_by_key):
        model, version, hour = key
        row = {"model": model, "version": version, "hour": hour}
        add_to_row(connection, prediction_sums, row, asdict(sums_by_key[key]))


def _sum_up(requests: Iterable[RecordedRequest]) -> Mapping[Key, _Sums]:
    sums_by_key = defaultdict[Key, _Sums](_Sums)
    for request in requests:
        prediction = _read_prediction(request)
        if prediction is None:
            continue
        key, confidence, abstained = prediction
        sums = sums_by_key[key]
        if abstained:
            sums.abstained += 1
        else:
            sums.predictions += 1
            sums.confidence += confidence
            sums.variance += confidence * (1 - confidence)
    return sums_by_key


def _read_prediction(request: RecordedRequest) -> tuple[Key, float, bool] | None:
    """Return key and confidence of a prediction, and whether the model abstained.

    Returns None for an entry without a prediction, or that was changed: `atalaya ledger verify` reports it.
    """
    try:
        output, model = request.document["output"], request.document["model"]
        if output is None or model is None:
            return None
        key = sanitize_name(model["name"]), sanitize_name(model["version"]), request.hour
        confidence = float(output["confidence"])
        abstained = output.get("abstention", {}).get("reason") is not None  # release 0.1.0 never abstained
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return (key, confidence, abstained) if 0 <= confidence <= 1 else None
