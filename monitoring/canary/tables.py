"""The tables of candidate trials; `monitoring/migrations` creates them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, String, Table, Text

metadata = MetaData()

_ID, _NAME, _TIME = String(64), String(64), String(27)

# `id` identifies the two artefacts that are compared. The verdict is null until the trial is decided; `claimed_at` is
# when a process last began to act on the verdict, and `is_finished` whether one has done so.
canary_trials = Table(
    "canary_trials",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("model", _NAME, nullable=False),
    Column("candidate", _NAME, nullable=False),
    Column("production", _NAME, nullable=False),
    Column("started_at", _TIME, nullable=False),
    Column("verdict", String(16)),
    Column("judged_at", _TIME),
    Column("claimed_at", _TIME),
    Column("is_finished", Boolean, nullable=False),
)

canary_counts = Table(
    "canary_counts",
    metadata,
    Column("trial", _ID, primary_key=True),
    Column("metric", String(16), primary_key=True),
    Column("worse", BigInteger, nullable=False),
    Column("same", BigInteger, nullable=False),
    Column("better", BigInteger, nullable=False),
)

# The labels that both models gave to the image of a prediction, until its true label arrives.
canary_pairs = Table(
    "canary_pairs",
    metadata,
    Column("prediction", String(36), primary_key=True),
    Column("trial", _ID, nullable=False),
    Column("candidate", Text, nullable=False),
    Column("production", Text, nullable=False),
    Index("ix_canary_pairs_trial", "trial"),
)
