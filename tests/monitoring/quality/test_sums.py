"""Sums over the confidence of recorded predictions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from monitoring.chains.signing import Signer
from monitoring.errors import LedgerUnavailable
from monitoring.ledger.upkeep.erasure import Eraser
from monitoring.ledger.upkeep.pruning import Pruner
from monitoring.quality.following import CHUNK, SumUpdater
from monitoring.quality.reader import PredictionSums, QualityReader
from monitoring.quality.sums import add_confidence_sums
from storage.transactions import WRITING
from tests.monitoring.ledger.ledgers import KEY, open_database
from tests.monitoring.quality.entries import AT, REFUSED, append, build_label, build_prediction, open_chain, update_sums

NEXT_HOUR = AT + timedelta(hours=1)


def read_sums(engine: Engine, since: datetime | None = None) -> list[PredictionSums]:
    return list(QualityReader(engine).list_sums(since, "tiny"))


def test_only_predictions_count(url: str, blocking: Engine) -> None:
    """Rejected requests and labels are left out, and abstentions are counted separately."""
    abstained = build_prediction(0.5, reason="low_confidence")
    (prediction, *_) = append(url, [build_prediction(0.75), build_prediction(0.9), abstained, REFUSED])
    append(url, [build_label(prediction)])
    update_sums(blocking)
    (sums,) = read_sums(blocking)
    assert (sums.model, sums.version, sums.predictions, sums.abstained) == ("tiny", "1.0", 2, 1)
    assert (sums.confidence, sums.variance) == pytest.approx((1.65, 0.75 * 0.25 + 0.9 * 0.1))


def test_versions_and_hours_are_apart(url: str, blocking: Engine) -> None:
    """Each version has its own sums, and a query from a given time on leaves out earlier hours."""
    append(url, [build_prediction(), build_prediction(version="2.0")])
    append(url, [build_prediction(version="2.0")] * 3, NEXT_HOUR)
    update_sums(blocking)
    assert [(sums.version, sums.predictions) for sums in read_sums(blocking)] == [("1.0", 1), ("2.0", 4)]
    later = read_sums(blocking, NEXT_HOUR.replace(minute=0))
    assert [(sums.version, sums.predictions) for sums in later] == [("2.0", 3)]


def test_each_entry_is_added_once(url: str, blocking: Engine) -> None:
    """Each update continues where the last one ended, across several chains and more than one chunk."""
    chain = open_chain(url)
    append(url, [build_prediction()], chain=chain)
    update_sums(blocking)
    append(url, [build_prediction()] * (CHUNK + 1), chain=chain)
    append(url, [build_prediction()])
    assert update_sums(blocking) == 3
    assert update_sums(blocking) == 0
    (sums,) = read_sums(blocking)
    assert sums.predictions == CHUNK + 3


def test_two_processes_add_each_entry_once(url: str, blocking: Engine) -> None:
    """Of two processes that have read the same entries, only one adds them, and both continue afterwards."""
    for _ in range(3):
        append(url, [build_prediction()] * 2)
    with open_database(url) as other:
        first, second = (SumUpdater(engine, [add_confidence_sums]).update() for engine in (blocking, other))
        for updates in (first, second, first, second, first, second):
            next(updates, None)
    (sums,) = read_sums(blocking)
    assert sums.predictions == 6


def test_erased_and_pruned_predictions_stay_counted(url: str, blocking: Engine) -> None:
    """Erasing and pruning predictions does not change the sums that already include them."""
    append(url, [build_prediction()] * 2)
    append(url, [build_prediction(principal="bob")], NEXT_HOUR)
    update_sums(blocking)
    writing, signer = blocking.execution_options(**WRITING), Signer(KEY)
    assert sum(Eraser(writing, signer, NEXT_HOUR).erase("bob")) == 1
    assert sum(Pruner(writing, signer, NEXT_HOUR).prune(NEXT_HOUR)) == 2
    append(url, [build_prediction()], NEXT_HOUR)
    update_sums(blocking)
    (sums,) = read_sums(blocking)
    assert sums.predictions == 4


def test_a_pruned_chain_is_added_from_its_first_entry(url: str, blocking: Engine) -> None:
    """When a ledger was pruned before its first update, the update adds the remaining entries."""
    append(url, [build_prediction()] * 3, AT - timedelta(days=9))
    append(url, [build_prediction()] * 2)
    assert sum(Pruner(blocking.execution_options(**WRITING), Signer(KEY), AT).prune(AT - timedelta(days=1))) == 3
    update_sums(blocking)
    (sums,) = read_sums(blocking)
    assert sums.predictions == 2


@pytest.mark.parametrize("document", ["{", '{"output": 1, "model": 2}', '{"output": {"confidence": "x"}, "model": {}}'])
def test_a_changed_document_is_left_out(url: str, blocking: Engine, document: str) -> None:
    """A document that someone has corrupted in the database is left out and does not stop the update."""
    append(url, [build_prediction()])
    with open_database(url) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE ledger_payloads SET document = :document"), {"document": document})
    append(url, [build_prediction()])
    update_sums(blocking)
    (sums,) = read_sums(blocking)
    assert sums.predictions == 1


def test_an_unavailable_database_is_an_error_of_the_ledger(url: str, blocking: Engine) -> None:
    """When a table is missing, both updating and reading raise LedgerUnavailable."""
    with open_database(url) as engine, engine.begin() as connection:
        connection.execute(text("ALTER TABLE prediction_sums RENAME TO away"))
    append(url, [build_prediction()], datetime.now(UTC))
    with pytest.raises(LedgerUnavailable):
        update_sums(blocking)
    with pytest.raises(LedgerUnavailable):
        read_sums(blocking)
