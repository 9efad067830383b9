"""The tables of drift; `monitoring/migrations` creates them. Times are ISO 8601 in UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, MetaData, String, Table, Text

metadata = MetaData()

# A row for each model and caller, and one with the caller ALL for all callers together.
drift_states = Table(
    "drift_states",
    metadata,
    Column("model", String(320), primary_key=True),
    Column("caller", String(320), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("predictions", BigInteger, nullable=False),
    Column("seen_at", String(27), nullable=False),
    Column("state", Text, nullable=False),
    Index("ix_drift_states_seen_at", "seen_at"),
)

# A row for each drift. `ended_at` is null while it lasts.
drift_findings = Table(
    "drift_findings",
    metadata,
    Column("model", String(320), primary_key=True),
    Column("caller", String(320), primary_key=True),
    Column("metric", String(32), primary_key=True),
    Column("found_at", String(27), primary_key=True),
    Column("since", String(27), nullable=False),
    Column("change", String(320), nullable=False),
    Column("reference", Double),
    Column("recent", Double),
    Column("ended_at", String(27)),
    Index("ix_drift_findings_ended_at", "ended_at"),
)
