"""The migration that gives all sums the same end of each chain."""

from __future__ import annotations

from alembic import command
from sqlalchemy import Engine, text

from monitoring import MIGRATIONS
from monitoring.cost.formula import Traffic
from monitoring.cost.store import CostStore
from monitoring.cost.sums import add_cost_sums
from monitoring.quality.following import SumUpdater
from monitoring.quality.reader import QualityReader
from monitoring.quality.sums import add_confidence_sums
from storage.migrations import alembic_config, upgrade
from storage.transactions import WRITING
from tests.monitoring.quality.entries import append, build_timed, open_chain, update_sums


def add_only_costs(engine: Engine) -> None:
    """Add new entries to the sums of costs only."""
    with engine.begin() as connection:
        before = connection.execute(text("SELECT writer, seq FROM prediction_sum_ends")).all()
    for _ in SumUpdater(engine, [add_cost_sums]).update():
        pass
    with engine.execution_options(**WRITING).begin() as connection:
        connection.execute(text("DELETE FROM cost_sum_ends WHERE writer IN (SELECT writer FROM prediction_sum_ends)"))
        connection.execute(text("INSERT INTO cost_sum_ends SELECT writer, seq FROM prediction_sum_ends"))
        connection.execute(text("DELETE FROM prediction_sum_ends"))
        ends = [{"writer": row.writer, "seq": row.seq} for row in before]
        connection.execute(text("INSERT INTO prediction_sum_ends VALUES (:writer, :seq)"), ends)


def test_each_entry_is_counted_once(url: str, blocking: Engine) -> None:
    """An entry that only one kind of sum counted before the migration is in both afterwards, and in neither twice."""
    chain, writing = open_chain(url), blocking.execution_options(**WRITING)
    append(url, [build_timed()] * 3, chain=chain)
    update_sums(blocking)
    with writing.begin() as connection:
        command.downgrade(alembic_config(connection, MIGRATIONS), "0010")
    append(url, [build_timed()] * 2, chain=chain)
    append(url, [build_timed("bob")])
    add_only_costs(blocking)
    append(url, [build_timed("cleo")])
    for _ in SumUpdater(blocking, [add_confidence_sums]).update():
        pass
    with writing.begin() as connection:
        upgrade(connection, MIGRATIONS)
    update_sums(blocking)
    costs, (sums,) = CostStore(blocking).read_month("2026-11"), QualityReader(blocking).list_sums(None, "tiny")
    assert costs.callers == {name: Traffic(n, n * 0.02, n * 500) for name, n in (("ana", 5), ("bob", 1), ("cleo", 1))}
    assert (costs.hours[0].traffic.predictions, costs.hours[0].requests, sums.predictions) == (7, 7, 7)
