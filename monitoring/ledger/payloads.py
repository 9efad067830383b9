"""Checks payloads against the entries that commit to them."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json

from monitoring.ledger.entries import SALT_BYTES, LedgerEntry, Payload, extract_columns

_MAX_NUMBER = 10**12  # no request takes eleven days, or has an image of a terabyte


def find_payload_problem(entry: LedgerEntry, payload: Payload) -> str | None:
    """Return what is wrong with the payload, as the end of a sentence, or None."""
    try:
        # A fixed length and a single spelling of the salt: otherwise bytes could move between salt and document.
        if len(payload.salt) != 2 * SALT_BYTES or bytes.fromhex(payload.salt).hex() != payload.salt:
            return "was changed: its salt is malformed"
        if payload.compute_commitment() != entry.commitment:
            return "was changed: it does not match the entry's commitment"
        document = parse_json(payload.document)
        columns = extract_columns(document)
        identity = document["id"], document["at"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "was changed: it cannot be read"
    if columns != (payload.principal, payload.model, payload.status):
        return "has columns that contradict its document"
    return None if identity == (entry.id, entry.at) else "belongs to another entry"


def parse_json(document: str) -> Any:
    """Parse a JSON text. Raises ValueError, RecursionError.

    pydantic's parser takes a third of the time but rejects lone surrogates; the standard library accepts them.
    """
    try:
        return from_json(document)
    except ValueError:
        return json.loads(document)


def read_number(value: Any) -> float:
    """Convert a number from a document. Raises ValueError, TypeError, OverflowError if invalid, negative or huge."""
    number = float(value)
    if not 0 <= number <= _MAX_NUMBER:
        raise ValueError(f"{number} is out of range")
    return number
