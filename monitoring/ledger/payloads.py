"""Whether a payload is what its entry commits to."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json

from monitoring.ledger.entries import SALT_BYTES, Entry, Payload, extract_columns


def payload_problem(entry: Entry, payload: Payload) -> str | None:
    """What is wrong with a payload, as the end of a sentence."""
    try:
        # A salt has one spelling and one length: what follows it is the document.
        if len(payload.salt) != 2 * SALT_BYTES or bytes.fromhex(payload.salt).hex() != payload.salt:
            return "was changed: its salt is none"
        if payload.commitment() != entry.commitment:
            return "was changed: it is not what the entry commits to"
        document = parsed(payload.document)
        repeated = extract_columns(document)
        named = document["id"], document["at"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "was changed: it cannot be read"
    if repeated != (payload.principal, payload.model, payload.status):
        return "has columns that do not say what its document says"
    return None if named == (entry.id, entry.at) else "belongs to another entry"


def parsed(document: str) -> Any:
    """What a text of JSON says. Raises ValueError, RecursionError.

    The parser that takes a third of the time knows no lone surrogates: the other one has the last word.
    """
    try:
        return from_json(document)
    except ValueError:
        return json.loads(document)
