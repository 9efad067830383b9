"""Forgeries by someone who knows how a ledger is verified but has no signing key."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import fields, replace

from monitoring.chains.signing import new_private_key
from monitoring.ledger.entries import Checkpoint, Head, LedgerEntry, Payload
from monitoring.ledger.payloads import find_payload_problem
from monitoring.ledger.records import EntryRecord, Record, StreamHeader
from monitoring.ledger.verification.report import MAX_PROBLEMS

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

Verify = Callable[..., Any]
Records = Sequence[Record]


def find_payload(records: Records) -> tuple[int, EntryRecord, Payload]:
    """Return index, record and payload of the first entry that has its payload."""
    for index, record in enumerate(records):
        if isinstance(record, EntryRecord) and record.payload is not None:
            return index, record, record.payload
    raise AssertionError


def replace_record(records: Records, index: int, record: Record) -> Records:
    return [*records[:index], record, *records[index + 1 :]]


def test_values_have_one_spelling(small_ledger: Records, verify_records: Verify) -> None:
    """A different encoding of the same salt or signature does not verify."""
    index, record, payload = find_payload(small_ledger)
    for spelling in (payload.salt.upper(), f"{payload.salt[:2]} {payload.salt[2:]}"):
        changed = replace(record, payload=replace(payload, salt=spelling))
        assert "its salt is malformed" in verify_records(replace_record(small_ledger, index, changed)).problems[0]
    head = small_ledger[-1]
    assert isinstance(head, Head)
    # The last character before the padding has four unused bits.
    other = BASE64[BASE64.index(head.signature[-3]) ^ 1]
    respelled = replace(head, signature=f"{head.signature[:-3]}{other}==")
    assert base64.b64decode(respelled.signature) == base64.b64decode(head.signature)
    assert "its signature does not match" in verify_records([*small_ledger[:-1], respelled]).problems[0]


def test_bytes_cannot_move_between_salt_and_document(small_ledger: Records) -> None:
    """Moving a byte from the salt to the document leaves the commitment unchanged, but is found."""
    _, record, payload = find_payload(small_ledger)
    spaced = replace(payload, salt=f"{payload.salt[:-2]}20")
    entry = replace(record.entry, commitment=spaced.compute_commitment())
    moved = replace(spaced, salt=spaced.salt[:-2], document=f" {spaced.document}")
    assert moved.compute_commitment() == entry.commitment
    assert find_payload_problem(entry, spaced) is None
    assert find_payload_problem(entry, moved) is not None


def test_a_statement_has_one_reading(small_ledger: Records, verify_records: Verify) -> None:
    """Distributing a checkpoint's lines differently over its fields is found, though its statement reads the same."""
    index, old = next((index, record) for index, record in enumerate(small_ledger) if isinstance(record, Checkpoint))
    shifted = replace(old, at=f"{old.at}\n{old.previous}", previous=old.heads.split("\n")[0], heads="")
    assert shifted.statement().rstrip("\n") == old.statement()
    assert any(
        "was changed" in problem for problem in verify_records(replace_record(small_ledger, index, shifted)).problems
    )


def test_a_stream_contains_one_ledger(small_ledger: Records, verify_records: Verify) -> None:
    """A stream does not verify if it is empty, has no header or two, or repeats a chain."""
    assert "stream is empty" in verify_records([]).problems[0]
    assert "header is missing" in verify_records(small_ledger[1:]).problems[0]
    assert "second header" in verify_records([StreamHeader(since="2026"), *small_ledger]).problems[0]
    assert "second header" in verify_records([*small_ledger, StreamHeader(since="2026")]).problems[0]
    _, first, _ = find_payload(small_ledger)
    again = [
        record
        for record in small_ledger
        if getattr(record.entry if isinstance(record, EntryRecord) else record, "writer", "") == first.entry.writer
    ]
    assert "is repeated" in verify_records([*small_ledger, *again]).problems[0]


@pytest.mark.parametrize("value", [None, 1.5, b"x", "\ud800", "x" * 500, "two\nlines"])
def test_values_of_the_wrong_type_are_found(small_ledger: Records, verify_records: Verify, value: Any) -> None:
    """A value of the wrong type, which SQLite can store in any column, is reported as a problem and raises no error."""
    index, record, payload = find_payload(small_ledger)
    for field in fields(LedgerEntry):
        changed = replace(record, entry=replace(record.entry, **{field.name: value}))
        assert verify_records(replace_record(small_ledger, index, changed)).problems, field.name
    for field in fields(Payload):
        changed = replace(record, payload=replace(payload, **{field.name: value}))
        assert verify_records(replace_record(small_ledger, index, changed)).problems, field.name


@pytest.mark.parametrize("document", ["", "[]", "null", "{}", '{"principal":1}', "[" * 100_000])
def test_documents_of_the_wrong_shape_are_found(small_ledger: Records, document: str) -> None:
    """A document that is not JSON, or lacks members, is reported as a problem and raises no error."""
    _, record, payload = find_payload(small_ledger)
    changed = replace(payload, document=document)
    assert find_payload_problem(replace(record.entry, commitment=changed.compute_commitment()), changed) is not None


def test_a_document_may_contain_lone_surrogates(small_ledger: Records) -> None:
    """A document with text that is not valid Unicode verifies like any other."""
    _, record, payload = find_payload(small_ledger)
    odd = replace(payload, document=payload.document.replace('"code":null', '"code":"\\ud800"'))
    assert find_payload_problem(replace(record.entry, commitment=odd.compute_commitment()), odd) is None


def test_the_number_of_problems_is_limited(small_ledger: Records, verify_records: Verify) -> None:
    """At most `MAX_PROBLEMS` problems are reported."""
    assert len(verify_records([*small_ledger, *small_ledger], key=new_private_key()).problems) == MAX_PROBLEMS
