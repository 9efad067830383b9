"""Record one end of each chain for all sums; until now, the sums of costs had ends of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa
from alembic import op

from monitoring.cost.sums import sum_costs
from monitoring.ledger.entries import NO_REQUEST
from monitoring.quality.following import parse_requests
from storage.engine import add_to_row

revision = "0011"
down_revision = "0010"

_CHUNK = 1000

_cost_ends = sa.table("cost_sum_ends", sa.column("writer"), sa.column("seq"))
_ends = sa.table("prediction_sum_ends", sa.column("writer"), sa.column("seq"))
_payloads = sa.table(
    "ledger_payloads", sa.column("writer"), sa.column("seq"), sa.column("status"), sa.column("document")
)


def upgrade() -> None:
    """Make the sums of costs end where the others do: add missing entries, subtract those that will be added again."""
    connection = op.get_bind()
    costs, others = _read_ends(connection, _cost_ends), _read_ends(connection, _ends)
    for writer in sorted(costs.keys() | others.keys()):
        cost, other = costs.get(writer, 0), others.get(writer, 0)
        sign = 1 if cost < other else -1
        for documents in _read_documents(connection, writer, min(cost, other), max(cost, other)):
            for table, key, values in sum_costs(parse_requests(documents)).list_rows():
                add_to_row(connection, table, key, {name: sign * value for name, value in values.items()})
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
        yield [row.document for row in rows if row.status != NO_REQUEST]
        after = rows[-1].seq


def downgrade() -> None:
    op.create_table(
        "cost_sum_ends",
        sa.Column("writer", sa.String(36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("writer", name="pk_cost_sum_ends"),
    )
    op.execute(_cost_ends.insert().from_select(["writer", "seq"], sa.select(_ends.c.writer, _ends.c.seq)))
