"""The rows of labels: written, erased, pruned and verified with their ledger entries."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.chains.signing import Signer
from monitoring.ledger.reader import LedgerReader
from monitoring.ledger.tables import ledger_labels
from monitoring.ledger.upkeep.erasure import Eraser
from monitoring.ledger.upkeep.pruning import Pruner
from monitoring.quality.labelled import count_labelled, iterate_labelled
from monitoring.quality.reader import CurrentLabel, QualityReader
from storage.transactions import WRITING
from tests.monitoring.ledger.environment import LedgerEnvironment
from tests.monitoring.ledger.ledgers import KEY, open_database, verify_database, verify_intact
from tests.monitoring.quality.entries import AT, append, build_label, build_prediction, open_chain
from tests.support.polling import wait_until_async

EARLIER = AT - timedelta(hours=2)


def count_rows(engine: Engine) -> int:
    with engine.begin() as connection:
        return len(connection.execute(select(ledger_labels)).all())


def read_labels(engine: Engine) -> list[CurrentLabel]:
    return list(QualityReader(engine).iterate_labels(None, "tiny"))


def test_the_newest_label_counts(url: str, blocking: Engine) -> None:
    """A second label of a prediction supersedes the first, whichever chain it is in."""
    first, second = append(url, [build_prediction(), build_prediction()])
    append(url, [build_label(first, "river"), build_label(second, "forest")])
    append(url, [build_label(first, "forest"), build_label(second, "river")], AT + timedelta(seconds=1))
    labels = sorted(read_labels(blocking))
    assert labels == [CurrentLabel("1.0", "forest", 0.75, "forest"), CurrentLabel("1.0", "forest", 0.75, "river")]
    assert QualityReader(blocking).count_labels(AT, "tiny", "1.0") == (2, 1)


def test_labels_count_for_the_time_of_their_prediction(url: str, blocking: Engine) -> None:
    """Labels are selected by the time of their prediction, not of the label itself, and by version."""
    old, new, other = append(url, [build_prediction()] * 3)
    append(url, [build_label(old, at=EARLIER), build_label(new), build_label(other, version="2.0")])
    reader = QualityReader(blocking)
    assert reader.count_labels(EARLIER, "tiny", "1.0") == (2, 2)
    assert reader.count_labels(AT, "tiny", "1.0") == (1, 1)
    assert len(list(reader.iterate_labels(AT, "tiny"))) == 2
    assert [label.version for label in reader.iterate_labels(AT, "tiny", "2.0")] == ["2.0"]
    assert list(reader.iterate_labels(EARLIER, "other")) == []


def test_the_ends_of_the_labels_move_with_each_label(url: str, blocking: Engine) -> None:
    """Appending a label to a chain moves the end of its labels; appending a prediction does not."""
    reader, chain = QualityReader(blocking), open_chain(url)
    assert reader.find_label_ends() == frozenset()
    (prediction,) = append(url, [build_prediction()], chain=chain)
    assert reader.find_label_ends() == frozenset()
    append(url, [build_label(prediction), build_prediction()], chain=chain)
    assert reader.find_label_ends() == {(chain.writer, 2)}
    append(url, [build_label(prediction, "river")])
    assert len(reader.find_label_ends()) == 2


def test_labels_of_abstentions_do_not_count(url: str, blocking: Engine) -> None:
    """A label of a prediction in which the model abstained is recorded, but left out of the results."""
    (prediction,) = append(url, [build_prediction(reason="low_confidence")])
    append(url, [build_label(prediction, abstained=True)])
    assert (count_rows(blocking), read_labels(blocking)) == (1, [])


async def test_labels_are_listed_with_their_entries(url: str, engine: AsyncEngine) -> None:
    """The labels of several predictions are found at once, oldest first, each with its entry."""
    first, second, third = append(url, [build_prediction()] * 3)
    ids = append(url, [build_label(first, "river"), build_label(second), build_label(first)])
    found = await LedgerReader(engine).list_labels([first, second, third])
    assert {key: [item.entry.id for item in items] for key, items in found.items()} == {
        first: [ids[0], ids[2]],
        second: [ids[1]],
    }
    assert [item.read_facts()["label"]["label"] for item in found[first]] == ["river", "forest"]


def test_erasing_a_person_erases_the_labels(url: str, blocking: Engine) -> None:
    """The labels of a person's predictions are erased with them; those of others stay, and the ledger verifies."""
    own, others = append(url, [build_prediction(), build_prediction(principal="bob")])
    append(url, [build_label(own), build_label(others, "river", principal="bob")])
    assert sum(Eraser(blocking.execution_options(**WRITING), Signer(KEY), AT).erase("ana")) == 2
    assert [label.label for label in read_labels(blocking)] == ["river"]
    assert verify_intact(url).erased == 2


def test_pruning_removes_labels_with_their_entries(url: str, blocking: Engine) -> None:
    """A label is pruned when its own entry is old enough, not when its prediction's entry is."""
    first, second = append(url, [build_prediction(), build_prediction()], EARLIER)
    append(url, [build_label(first)], EARLIER)
    append(url, [build_label(second, "river")])
    assert sum(Pruner(blocking.execution_options(**WRITING), Signer(KEY), AT).prune(AT)) == 3
    assert [label.label for label in read_labels(blocking)] == ["river"]
    verify_intact(url)


def test_labelled_predictions_are_counted_without_pruned_ones(url: str, blocking: Engine) -> None:
    """The number of labelled predictions is that of those that are read: each once, and none that was pruned."""
    prediction = build_prediction() | {"image": {"sha256": "ab12"}}
    old, kept = *append(url, [prediction], EARLIER), *append(url, [prediction])
    append(url, [build_label(old, at=EARLIER), build_label(kept), build_label(kept, "river")])
    assert [count_labelled(blocking, since) for since in (None, AT)] == [2, 1]
    assert sum(Pruner(blocking.execution_options(**WRITING), Signer(KEY), AT).prune(AT)) == 1
    assert [(each.id, each.label) for each in iterate_labelled(blocking, None)] == [(kept, "river")]
    assert count_labelled(blocking, None) == 1


async def test_a_spooled_label_gets_its_row_when_it_is_delivered(
    environment: LedgerEnvironment, blocking: Engine
) -> None:
    """A label that was recorded while the database was unavailable counts once it is delivered."""
    async with environment.ledger() as ledger:
        prediction = await ledger.record(build_prediction(), None)
        async with environment.outage():
            await ledger.record(build_label(prediction, "river"), None)
            assert ledger.state == "spooling"
        await wait_until_async(lambda: ledger.state == "writing")
    assert [label.label for label in read_labels(blocking)] == ["river"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_labels SET label = 'forest'",
        "UPDATE ledger_labels SET predicted = 'river'",
        "UPDATE ledger_labels SET model = 'other'",
        "DELETE FROM ledger_labels",
    ],
)
def test_a_changed_row_is_found(url: str, change: str) -> None:
    """Verification finds the row of a label that was changed or removed to alter the results."""
    (prediction,) = append(url, [build_prediction()])
    append(url, [build_label(prediction, "river")])
    verify_intact(url)
    with open_database(url) as engine, engine.begin() as connection:
        connection.execute(text(change))
    (problem,) = verify_database(url).problems
    assert problem.startswith("The row of the label in entry 1 of ")


def test_an_added_row_is_found(url: str) -> None:
    """Verification finds the row of a label that has no entry."""
    (prediction,) = append(url, [build_prediction()])
    append(url, [build_label(prediction)])
    with open_database(url) as engine, engine.begin() as connection:
        columns = ", ".join(column.name for column in ledger_labels.columns if column.name != "seq")
        connection.execute(
            text(f"INSERT INTO ledger_labels (seq, {columns}) SELECT 2, {columns} FROM ledger_labels")  # noqa: S608
        )
    (problem,) = verify_database(url).problems
    assert problem.startswith("The row of the label in entry 2 of ")
