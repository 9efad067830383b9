"""What somebody makes of a ledger who knows how it is checked, but has no key."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest

from monitoring.chains.signing import new_private_key
from monitoring.ledger.entries import Checkpoint, Entry, Head, Payload
from monitoring.ledger.payloads import payload_problem
from monitoring.ledger.records import Header, Line, Record
from monitoring.ledger.verify import MOST_PROBLEMS

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

Check = Callable[..., Any]
Records = Sequence[Record]


def told(records: Records) -> tuple[int, Line, Payload]:
    """The first entry that has its payload, and where it is."""
    for place, record in enumerate(records):
        if isinstance(record, Line) and record.payload is not None:
            return place, record, record.payload
    raise AssertionError


def exchanged(records: Records, place: int, record: Record) -> Records:
    return [*records[:place], record, *records[place + 1 :]]


def test_a_value_has_one_spelling(small_ledger: Records, check: Check) -> None:
    """A salt or a signature that is written in another way, for the same bytes, is a change."""
    place, line, payload = told(small_ledger)
    for spelling in (payload.salt.upper(), f"{payload.salt[:2]} {payload.salt[2:]}"):
        changed = replace(line, payload=replace(payload, salt=spelling))
        assert "its salt is none" in check(exchanged(small_ledger, place, changed)).problems[0]
    head = small_ledger[-1]
    assert isinstance(head, Head)
    # The last character before the padding has four bits that stand for nothing.
    other = BASE64[BASE64.index(head.signature[-3]) ^ 1]
    respelled = replace(head, signature=f"{head.signature[:-3]}{other}==")
    assert base64.b64decode(respelled.signature) == base64.b64decode(head.signature)
    assert "its signature does not fit" in check([*small_ledger[:-1], respelled]).problems[0]


def test_a_salt_ends_where_the_document_begins(small_ledger: Records) -> None:
    """A byte that moves from the salt to the document leaves the commitment as it was, and is found."""
    _, line, payload = told(small_ledger)
    spaced = replace(payload, salt=f"{payload.salt[:-2]}20")
    entry = replace(line.entry, commitment=spaced.commitment())
    moved = replace(spaced, salt=spaced.salt[:-2], document=f" {spaced.document}")
    assert moved.commitment() == entry.commitment
    assert payload_problem(entry, spaced) is None
    assert payload_problem(entry, moved) is not None


def test_a_text_has_one_reading(small_ledger: Records, check: Check) -> None:
    """A checkpoint whose lines are dealt out to its fields in another way keeps its hash and signature; it is found."""
    place, old = next((place, record) for place, record in enumerate(small_ledger) if isinstance(record, Checkpoint))
    shifted = replace(old, at=f"{old.at}\n{old.previous}", previous=old.heads.split("\n")[0], heads="")
    assert shifted.text().rstrip("\n") == old.text()
    assert any("was changed" in problem for problem in check(exchanged(small_ledger, place, shifted)).problems)


def test_a_stream_is_one_ledger(small_ledger: Records, check: Check) -> None:
    """An empty one, one without its header, two put together and a chain that comes again are none."""
    assert "nothing in it" in check([]).problems[0]
    assert "header is missing" in check(small_ledger[1:]).problems[0]
    assert "second header" in check([Header(since="2026"), *small_ledger]).problems[0]
    assert "second header" in check([*small_ledger, Header(since="2026")]).problems[0]
    _, line, _ = told(small_ledger)
    again = [
        record
        for record in small_ledger
        if getattr(record.entry if isinstance(record, Line) else record, "writer", "") == line.entry.writer
    ]
    assert "there twice" in check([*small_ledger, *again]).problems[0]


@pytest.mark.parametrize("value", [None, 1.5, b"x", "\ud800", "x" * 500, "two\nlines"])
def test_values_of_another_kind_are_problems(small_ledger: Records, check: Check, value: Any) -> None:
    """SQLite takes anything in any column: whatever is there, it is a problem with a name and not an error."""
    place, line, payload = told(small_ledger)
    for field in fields(Entry):
        changed = replace(line, entry=replace(line.entry, **{field.name: value}))
        assert check(exchanged(small_ledger, place, changed)).problems, field.name
    for field in fields(Payload):
        changed = replace(line, payload=replace(payload, **{field.name: value}))
        assert check(exchanged(small_ledger, place, changed)).problems, field.name


@pytest.mark.parametrize("document", ["", "[]", "null", "{}", '{"principal":1}', "[" * 100_000])
def test_a_payload_of_another_shape_is_a_problem(small_ledger: Records, document: str) -> None:
    """A document that is none, or lacks what it should say, is named, not an error."""
    _, line, payload = told(small_ledger)
    changed = replace(payload, document=document)
    assert payload_problem(replace(line.entry, commitment=changed.commitment()), changed) is not None


def test_a_document_may_hold_any_text(small_ledger: Records) -> None:
    """What is no Unicode, in a file's or a caller's own words, is committed to like the rest."""
    _, line, payload = told(small_ledger)
    odd = replace(payload, document=payload.document.replace('"code":null', '"code":"\\ud800"'))
    assert payload_problem(replace(line.entry, commitment=odd.commitment()), odd) is None


def test_no_more_problems_than_a_reader_takes(small_ledger: Records, check: Check) -> None:
    """A ledger that is wrong all over is told in twenty sentences."""
    assert len(check([*small_ledger, *small_ledger], key=new_private_key()).problems) == MOST_PROBLEMS
