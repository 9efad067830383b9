"""Record one end of each chain for all sums; until now, the sums of costs had ends of their own."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_CHUNK = 1000
_NO_REQUEST = 0  # the status of an entry that records an event instead of a request
_BUSY_STAGES = ("decode", "infer", "explain")
_MAX_NAME, _MAX_NUMBER = 320, 10**12
_HOUR, _MONTH = len("2026-11-03T09"), len("2026-11")

_cost_ends = sa.table("cost_sum_ends", sa.column("writer"), sa.column("seq"))
_ends = sa.table("prediction_sum_ends", sa.column("writer"), sa.column("seq"))
_payloads = sa.table(
    "ledger_payloads", sa.column("writer"), sa.column("seq"), sa.column("status"), sa.column("document")
)
_traffic = ("predictions", "busy_us", "bytes")
_callers = sa.table("caller_sums", *map(sa.column, ("caller", "month", *_traffic)))
_hours = sa.table("traffic_hours", *map(sa.column, ("hour", "requests", *_traffic)))


def upgrade() -> None:
    """Make the sums of costs end where the others do: add missing entries, subtract those that will be added again."""
    connection = op.get_bind()
    costs, others = _read_ends(connection, _cost_ends), _read_ends(connection, _ends)
    for writer in sorted(costs.keys() | others.keys()):
        cost, other = costs.get(writer, 0), others.get(writer, 0)
        sign = 1 if cost < other else -1
        for documents in _read_documents(connection, writer, min(cost, other), max(cost, other)):
            _add_costs(connection, documents, sign)
    op.drop_table("cost_sum_ends")


def _read_ends(connection: sa.Connection, table: sa.TableClause) -> Mapping[str, int]:
    """Return the last counted entry of each chain. The lock keeps a running gateway from moving it meanwhile."""
    rows = connection.execute(sa.select(table.c.writer, table.c.seq).with_for_update())
    return {row.writer: row.seq for row in rows}


def _read_documents(connection: sa.Connection, writer: str, after: int, end: int) -> Iterator[Sequence[str]]:
    """Yield the documents of the requests after entry `after` up to entry `end`, in chunks."""
    columns = _payloads.c
    chosen = sa.select(columns.seq, columns.status, columns.document).order_by(columns.seq).limit(_CHUNK)
    own = columns.writer == writer, columns.seq <= end
    while rows := connection.execute(chosen.where(*own, columns.seq > after)).all():
        yield [row.document for row in rows if row.status != _NO_REQUEST]
        after = rows[-1].seq


# The following functions repeat what the package computed when this migration was written. They must not change with
# the package, because they subtract what that release has added.


def _add_costs(connection: sa.Connection, documents: Iterable[str], sign: int) -> None:
    """Add `sign` times what the requests used to the sums. Entries that were changed are left out."""
    callers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    hours: dict[str, Counter[str]] = defaultdict(Counter)
    for document in documents:
        with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            hour, caller, requests, used = _read_request(document)
            hours[hour].update(used, requests=requests)
            if used:
                callers[caller, hour[:_MONTH]].update(used)
    for (caller, month), sums in sorted(callers.items()):
        values = {name: sign * sums[name] for name in _traffic}
        _add_to_row(connection, _callers, {"caller": caller, "month": month}, values)
    for hour, sums in sorted(hours.items()):
        values = {name: sign * sums[name] for name in ("requests", *_traffic)}
        _add_to_row(connection, _hours, {"hour": hour}, values)


def _read_request(document: str) -> tuple[str, str, int, Mapping[str, int]]:
    """Return hour, caller, number of requests, and what a prediction used, if there is one.

    Raises ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError for a changed entry.
    """
    facts = json.loads(document)
    at, hour = datetime.fromisoformat(facts["at"]), facts["at"][:_HOUR]
    if f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z" != facts["at"]:
        raise ValueError("the time has another form")
    name = facts["principal"][:_MAX_NAME]
    caller = "".join(character if character.isprintable() else "?" for character in name)
    requests = int(_read_number(facts.get("count", 1)))
    if facts["output"] is None:
        return hour, caller, requests, {}
    busy_us = sum(_read_number(facts["timing_us"].get(stage, 0)) for stage in _BUSY_STAGES)
    size = _read_number(facts["image"]["bytes"])
    return hour, caller, requests, {"predictions": 1, "busy_us": int(busy_us), "bytes": int(size)}


def _read_number(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= _MAX_NUMBER:
        raise ValueError(f"{number} is out of range")
    return number


def _add_to_row(
    connection: sa.Connection, table: sa.TableClause, key: Mapping[str, str], values: Mapping[str, int]
) -> None:
    """Add `values` to the columns of a row, or insert the row; `key` holds its primary key."""
    added = import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(table).values(**key, **values)
    totals = {name: table.c[name] + added.excluded[name] for name in values}
    connection.execute(added.on_conflict_do_update(index_elements=list(key), set_=totals))


def downgrade() -> None:
    op.create_table(
        "cost_sum_ends",
        sa.Column("writer", sa.String(36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("writer", name="pk_cost_sum_ends"),
    )
    op.execute(_cost_ends.insert().from_select(["writer", "seq"], sa.select(_ends.c.writer, _ends.c.seq)))
