"""The table of evaluations of the served model; `monitoring/migrations` creates it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

# `at` is in seconds since 1970, `lower` and `upper` bound the 95 % confidence interval of `accuracy`. `correct` has a
# bit for each image, in base64 (see monitoring/quality/evaluations.py). The columns from `reference` to `p_value` are
# null for the first evaluation of these images.
evaluations = Table(
    "evaluations",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("data_digest", String(64), nullable=False),
    Column("n", Integer, nullable=False),
    Column("accuracy", Double, nullable=False),
    Column("lower", Double, nullable=False),
    Column("upper", Double, nullable=False),
    Column("macro_f1", Double, nullable=False),
    Column("ece", Double, nullable=False),
    Column("correct", Text, nullable=False),
    Column("reference", String(36)),
    Column("lost", Integer),
    Column("gained", Integer),
    Column("p_value", Double),
    Column("is_loss", Boolean, nullable=False),
    Index("ix_evaluations_data_digest", "data_digest"),
)
