"""Sums over the confidence of recorded predictions, by version and hour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from monitoring.chains.timestamps import read_hour
from monitoring.ledger.entries import sanitize_name
from monitoring.ledger.payloads import parse_json
from monitoring.ledger.tables import prediction_sum_ends, prediction_sums
from monitoring.quality.following import ChainFollower
from storage.engine import dialect_insert

Key = tuple[str, str, str]
"""Model, version and hour."""

Facts = Mapping[str, Any]
"""The document of an entry; it may have been changed by others."""

AddFacts = Callable[[Connection, Sequence[Facts]], None]
"""Adds entries to other results, in the transaction that adds them to the sums; must not raise for changed ones."""


@dataclass(slots=True)
class _Sums:
    predictions: int = 0
    confidence: float = 0.0
    variance: float = 0.0
    abstained: int = 0


class SumUpdater(ChainFollower[Sequence[Facts]]):
    """Adds to the table `prediction_sums`.

    `add_facts` gets the entries of each transaction, so that they are read and counted once for everything.
    """

    def __init__(self, engine: Engine, add_facts: AddFacts = lambda _connection, _facts: None) -> None:
        super().__init__(engine, prediction_sum_ends)
        self._add_facts = add_facts

    def sum_up(self, documents: Iterable[str]) -> Sequence[Facts]:
        return list(_parse_documents(documents))

    def add(self, connection: Connection, sums: Sequence[Facts]) -> None:
        found = _sum_up(sums)
        for key in sorted(found):
            _add_sums(connection, key, found[key])
        self._add_facts(connection, sums)


def _add_sums(connection: Connection, key: Key, sums: _Sums) -> None:
    values = {name: getattr(sums, name) for name in _Sums.__slots__}
    added = dialect_insert(prediction_sums, connection.dialect).values(
        model=key[0], version=key[1], hour=key[2], **values
    )
    totals = {name: prediction_sums.c[name] + added.excluded[name] for name in values}
    connection.execute(added.on_conflict_do_update(index_elements=prediction_sums.primary_key, set_=totals))


def _parse_documents(documents: Iterable[str]) -> Iterator[Facts]:
    """Yield the documents that are JSON objects: `atalaya ledger verify` reports what was changed."""
    for document in documents:
        with suppress(ValueError, RecursionError):
            facts = parse_json(document)
            if isinstance(facts, dict):
                yield facts


def _sum_up(documents: Iterable[Facts]) -> Mapping[Key, _Sums]:
    found = defaultdict[Key, _Sums](_Sums)
    for facts in documents:
        prediction = _read_prediction(facts)
        if prediction is None:
            continue
        key, confidence, abstained = prediction
        sums = found[key]
        if abstained:
            sums.abstained += 1
        else:
            sums.predictions += 1
            sums.confidence += confidence
            sums.variance += confidence * (1 - confidence)
    return found


def _read_prediction(facts: Facts) -> tuple[Key, float, bool] | None:
    """Return key and confidence of a prediction, and whether the model abstained; None for another or changed entry."""
    try:
        output, model = facts["output"], facts["model"]
        if output is None or model is None:
            return None
        key = sanitize_name(model["name"]), sanitize_name(model["version"]), read_hour(facts["at"])
        confidence = float(output["confidence"])
        abstained = output.get("abstention", {}).get("reason") is not None  # release 0.1.0 never abstained
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None  # `atalaya ledger verify` reports what was changed
    return (key, confidence, abstained) if 0 <= confidence <= 1 else None
