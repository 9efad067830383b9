"""The tables of costs; `monitoring/migrations` creates them. An hour looks like 2026-11-03T09, a month like 2026-11."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, MetaData, String, Table

metadata = MetaData()

_HOUR, _MONTH = String(13), String(7)


def _traffic() -> tuple[Column[int], ...]:
    """What recorded predictions used: microseconds of a worker thread, and bytes of the images."""
    return (
        Column("predictions", BigInteger, nullable=False),
        Column("busy_us", BigInteger, nullable=False),
        Column("bytes", BigInteger, nullable=False),
    )


# Computed from the ledger's entries.
caller_sums = Table(
    "caller_sums",
    metadata,
    Column("month", _MONTH, primary_key=True),
    Column("caller", String(320), primary_key=True),  # the principal of the entries
    *_traffic(),
)

# Computed from the ledger's entries. `requests` includes those without a prediction.
traffic_hours = Table(
    "traffic_hours",
    metadata,
    Column("hour", _HOUR, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    *_traffic(),
)

# Measured by all processes of the gateway together.
resource_hours = Table(
    "resource_hours",
    metadata,
    Column("hour", _HOUR, primary_key=True),
    Column("processor_s", Double, nullable=False),
    Column("memory_gb_s", Double, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
)
