"""Sums of the resources that recorded predictions used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from monitoring.chains.signing import Signer
from monitoring.chains.timestamps import format_timestamp
from monitoring.cost.formula import Resources, Traffic
from monitoring.cost.resources import HourResources
from monitoring.cost.store import CostStore, MonthUse
from monitoring.ledger.upkeep.erasure import Eraser
from monitoring.quality import following
from monitoring.quality.following import RecordedRequest, parse_requests
from monitoring.quality.reader import QualityReader
from storage.transactions import WRITING
from tests.monitoring.ledger.ledgers import KEY
from tests.monitoring.quality.entries import AT, REFUSED, append, build_timed, update_sums

NEXT_MONTH = AT + timedelta(days=10)


def read(engine: Engine, month: str = "2026-11") -> MonthUse:
    update_sums(engine)
    return CostStore(engine).read_month(month)


def test_sums_by_caller_and_hour(url: str, blocking: Engine) -> None:
    """Time in the queue is not counted, and requests without a prediction count only as requests."""
    append(url, [build_timed(), build_timed(), build_timed("bob"), REFUSED | {"count": 5}])
    append(url, [build_timed()], NEXT_MONTH)
    use = read(blocking)
    assert use.callers == {"ana": Traffic(2, 0.04, 1000), "bob": Traffic(1, 0.02, 500)}
    (hour,) = use.hours
    assert (hour.hour, hour.requests, hour.resources) == ("2026-11-23T09", 8, None)
    assert hour.traffic == Traffic(3, 0.06, 1500)
    assert read(blocking, "2026-12").callers == {"ana": Traffic(1, 0.02, 500)}


def test_resources_of_several_processes_add_up(url: str, blocking: Engine) -> None:
    """Each process adds its resources to the row of the hour, even if the hour has no traffic."""
    assert url
    for _ in range(2):
        CostStore(blocking).add_resources([HourResources("2026-11-23T09", 1.5, 20.0, 7)])
    (hour,) = read(blocking).hours
    assert hour.resources == Resources(3.0, 40.0, 14)
    assert (hour.requests, hour.traffic) == (0, Traffic())


def test_the_hours_of_neighbouring_months_do_not_count(url: str, blocking: Engine) -> None:
    """A month has the hours from its first day to its last, also at the end of a year."""
    assert url
    hours = ["2026-11-30T23", "2026-12-01T00", "2026-12-31T23", "2027-01-01T00"]
    CostStore(blocking).add_resources([HourResources(hour, 1.5, 20.0, 7) for hour in hours])
    assert [hour.hour for hour in read(blocking, "2026-12").hours] == hours[1:3]


def test_erasing_a_person_erases_its_sums(url: str, blocking: Engine) -> None:
    """Erasing a caller deletes the caller's sums; the sums of the hours, which name nobody, stay."""
    append(url, [build_timed(), build_timed("bob")])
    read(blocking)
    assert sum(Eraser(blocking.execution_options(**WRITING), Signer(KEY), AT).erase("bob")) == 1
    use = read(blocking)
    assert use.callers.keys() == {"ana"}
    assert use.hours[0].traffic.predictions == 2


def test_erasure_while_sums_are_updated(url: str, blocking: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update writes no row of a person who was erased after the update read that person's predictions."""
    append(url, [build_timed(), build_timed("bob"), REFUSED | {"principal": "bob"}])
    erased = 0

    def erase_and_parse(documents: Iterable[str]) -> Sequence[RecordedRequest]:
        nonlocal erased
        requests = parse_requests(documents)
        if not erased:
            erased = sum(Eraser(blocking.execution_options(**WRITING), Signer(KEY), AT).erase("bob"))
        return requests

    monkeypatch.setattr(following, "parse_requests", erase_and_parse)
    use = read(blocking)
    assert use.callers == {"ana": Traffic(1, 0.02, 500)}
    assert use.hours[0].traffic.predictions == 1


@pytest.mark.parametrize(
    ("change", "left_out"),
    [
        ({"principal": 1}, {"cost"}),
        ({"at": "2026-11-23T0\0"}, {"cost", "quality"}),
        ({"at": "2026-11-45T99:00:00.000000Z"}, {"cost", "quality"}),
        ({"at": "9999-12-31T23:00:00.000000-05:00"}, {"cost", "quality"}),
        ({"count": -1}, {"cost"}),
        ({"timing_us": {"infer": 10**30}}, {"cost"}),
        ({"timing_us": {"infer": float("inf")}}, {"cost"}),
        ({"image": {"bytes": 10**30}}, {"cost"}),
        ({"output": {"confidence": 10**400}}, {"quality"}),
    ],
)
def test_a_changed_document_is_left_out(url: str, blocking: Engine, change: dict[str, Any], left_out: set[str]) -> None:
    """A document that someone has corrupted in the database is left out of the sums that it would corrupt."""
    facts = build_timed() | {"id": "1", "at": format_timestamp(AT)} | change
    append(url, [build_timed()])
    with blocking.execution_options(**WRITING).begin() as connection:
        connection.execute(text("UPDATE ledger_payloads SET document = :document"), {"document": json.dumps(facts)})
    append(url, [build_timed()])
    (hour,) = read(blocking).hours
    assert hour.traffic == (Traffic(1, 0.02, 500) if "cost" in left_out else Traffic(2, 0.04, 1000))
    (quality,) = QualityReader(blocking).list_sums(None)
    assert quality.predictions == (1 if "quality" in left_out else 2)
