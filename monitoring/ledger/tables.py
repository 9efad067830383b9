"""The ledger's tables; `monitoring/migrations` creates them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ColumnElement, Double, Index, Integer, MetaData, String, Table, Text, select

metadata = MetaData()

_WRITER, _HASH, _TIME, _KEY, _SIGNATURE = String(36), String(64), String(27), String(16), String(88)


def _entry_key() -> tuple[Column[str], Column[int]]:
    """The primary key: the number of an entry of a writer."""
    return (
        Column("writer", _WRITER, primary_key=True),
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
    )


def _signed() -> tuple[Column[str], Column[str]]:
    return Column("key", _KEY, nullable=False), Column("signature", _SIGNATURE, nullable=False)


ledger_entries = Table(
    "ledger_entries",
    metadata,
    *_entry_key(),
    Column("id", String(36), nullable=False, unique=True),  # UUIDv7
    Column("at", _TIME, nullable=False, index=True),  # 2026-11-03T09:30:00.000000Z
    Column("commitment", _HASH, nullable=False),
    Column("hash", _HASH, nullable=False),
)

# Separate from the entries, so that a payload can be erased while its chain stays.
ledger_payloads = Table(
    "ledger_payloads",
    metadata,
    *_entry_key(),
    Column("id", String(36), nullable=False),
    Column("principal", String(320), nullable=False),
    Column("model", String(320), nullable=False),
    Column("status", Integer, nullable=False),
    Column("salt", String(64), nullable=False),
    Column("document", Text, nullable=False),
    Index("ix_ledger_payloads_principal_id", "principal", "id"),
)

ledger_erasures = Table("ledger_erasures", metadata, *_entry_key(), Column("at", _TIME, nullable=False), *_signed())

# When the entries of a subject were erased, to erase those that are delivered later. `subject` is a name's SHA-256.
ledger_erased_subjects = Table(
    "ledger_erased_subjects",
    metadata,
    Column("subject", _HASH, primary_key=True),
    Column("at", _TIME, nullable=False, index=True),
)

# One row for each writer. `claimed` is the number of the last entry that a checkpoint has named, -1 before the first
# one. It is not signed, and is only a hint that saves reading checkpoints.
ledger_heads = Table(
    "ledger_heads",
    metadata,
    Column("writer", _WRITER, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", _HASH, nullable=False),
    Column("checkpoint", BigInteger, nullable=False),
    Column("claimed", BigInteger, nullable=False),
    *_signed(),
)

ledger_checkpoints = Table(
    "ledger_checkpoints",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", _TIME, nullable=False),
    Column("heads", Text, nullable=False),
    Column("previous", _HASH, nullable=False),
    Column("hash", _HASH, nullable=False),
    *_signed(),
)

# The last removed entry of each pruned chain.
ledger_stumps = Table(
    "ledger_stumps",
    metadata,
    Column("writer", _WRITER, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", _HASH, nullable=False),
    Column("at", _TIME, nullable=False),
    *_signed(),
)

# The fields of each label from which a model's results are computed, written with the label's entry. Not signed: the
# entry contains them all.
ledger_labels = Table(
    "ledger_labels",
    metadata,
    *_entry_key(),
    Column("id", String(36), nullable=False),
    Column("prediction", String(36), nullable=False),
    Column("predicted_at", _TIME, nullable=False),
    Column("model", String(320), nullable=False),
    Column("version", String(320), nullable=False),
    Column("predicted", String(320), nullable=False),
    Column("confidence", Double, nullable=False),
    Column("abstained", Integer, nullable=False),
    Column("label", String(320), nullable=False),
    Index("ix_ledger_labels_prediction_id", "prediction", "id"),
    Index("ix_ledger_labels_model", "model", "version", "predicted_at"),
)

# Sums over the predictions of a version in an hour, such as 2026-11-03T09. Not signed: computed from the entries.
prediction_sums = Table(
    "prediction_sums",
    metadata,
    Column("model", String(320), primary_key=True),
    Column("version", String(320), primary_key=True),
    Column("hour", String(13), primary_key=True),
    Column("predictions", BigInteger, nullable=False),  # without those on which the model abstained
    Column("confidence", Double, nullable=False),  # the sum of p
    Column("variance", Double, nullable=False),  # the sum of p (1 - p)
    Column("abstained", BigInteger, nullable=False),
)

# The last entry of each chain that is part of the sums.
prediction_sum_ends = Table(
    "prediction_sum_ends",
    metadata,
    Column("writer", _WRITER, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)


def is_superseded() -> ColumnElement[bool]:
    """Return the condition that a label is not the newest of its prediction."""
    labels, newer = ledger_labels.c, ledger_labels.alias().c
    return select(newer.id).where(newer.prediction == labels.prediction, newer.id > labels.id).exists()
