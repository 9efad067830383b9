"""Audit events, whose texts are safe to store, and the chained entries built from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, astuple, replace
from sqlalchemy import Row

from monitoring.chains.ids import new_id
from monitoring.chains.timestamps import format_timestamp
from monitoring.redaction import REDACTED, is_secret_name, redact, to_printable

PRUNED = ("audit", "pruned")  # event and outcome of the entry that records a removal of the oldest entries
NAME_LENGTH = 320

_WORD_LENGTH = 32
_SHORT_LENGTH = 64
_VALUE_LENGTH = 256
_MAX_DETAILS = 16
_VARIOUS_DETAIL = '{"from":"various"}'
_REDACTED_LENGTH = 4096  # characters; redacting what is cut off afterwards would waste time


class AuditEvent(Struct, frozen=True):
    """One event, or `count` equal ones since `at` (UTC). Create it with `new_event`."""

    at: datetime
    event: str
    outcome: str
    actor: str
    target: str
    address: str
    request_id: str
    detail: str  # a JSON object of texts
    count: int = 1

    @property
    def merge_key(self) -> tuple[str, ...]:
        """The fields in which equal events agree: everything but the time and the request."""
        return self.event, self.outcome, self.actor, self.target, self.address, self.detail

    def merge(self, other: AuditEvent) -> AuditEvent:
        """Return this event with the counts of both added up; `other` has the same `merge_key`."""
        return replace(self, count=self.count + other.count)

    def without_details(self) -> AuditEvent:
        """Return the event reduced to its name, outcome and count."""
        return replace(self, actor="", target="", address="", request_id="", detail=_VARIOUS_DETAIL)


class AuditEntry(Struct, frozen=True):
    """A row of the audit log. `hash` covers every other field; `previous` is the hash of the previous entry."""

    seq: int
    id: str
    at: str
    event: str
    outcome: str
    actor: str
    target: str
    address: str
    request_id: str
    detail: str
    count: int
    previous: str
    hash: str

    def compute_hash(self) -> str:
        """Return the SHA-256, in hex, of the other fields in order, as one JSON list in ASCII without spaces."""
        fields = json.dumps(astuple(self)[:-1], separators=(",", ":"))
        return hashlib.sha256(fields.encode()).hexdigest()

    def is_intact(self) -> bool:
        """Whether the hash matches the other fields."""
        return self.hash == self.compute_hash()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON, with the detail as an object if it can be parsed."""
        try:
            detail = json.loads(self.detail)
        except ValueError:  # the row was changed in the database
            detail = self.detail
        return {**asdict(self), "detail": detail}


def new_event(
    event: str,
    outcome: str,
    *,
    actor: str = "",
    target: str = "",
    address: str = "",
    request_id: str = "",
    detail: Mapping[str, str] | None = None,
) -> AuditEvent:
    """Create an event that happens now, with secrets masked, control characters escaped and texts truncated."""
    return AuditEvent(
        datetime.now(UTC),
        sanitize(event, _WORD_LENGTH),
        sanitize(outcome, _WORD_LENGTH),
        sanitize(actor, NAME_LENGTH),
        sanitize(target, NAME_LENGTH),
        sanitize(address, _SHORT_LENGTH),
        sanitize(request_id, _SHORT_LENGTH),
        _encode_detail(detail or {}),
    )


def build_entry(event: AuditEvent, seq: int, previous: str) -> AuditEntry:
    """Build the next entry of the chain from the event; `previous` is the hash of the last entry."""
    entry = AuditEntry(
        seq=seq,
        id=new_id(),
        at=format_timestamp(event.at),
        event=event.event,
        outcome=event.outcome,
        actor=event.actor,
        target=event.target,
        address=event.address,
        request_id=event.request_id,
        detail=event.detail,
        count=event.count,
        previous=previous,
        hash="",
    )
    return replace(entry, hash=entry.compute_hash())


def read_entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(**row._mapping)


def build_pruned_detail(seq: int, digest: str) -> dict[str, str]:
    """Build the detail of an entry that records pruning: the number and the hash of the last removed entry."""
    return {"through": str(seq), "hash": digest}


def sanitize(text: str, length: int) -> str:
    """Return one line of at most `length` printable characters, without credentials."""
    escaped = to_printable(redact(text[:_REDACTED_LENGTH]))
    return escaped if len(escaped) <= length else f"{escaped[: length - 1]}…"


def _encode_detail(detail: Mapping[str, str]) -> str:
    safe = {
        sanitize(name, _WORD_LENGTH): REDACTED if is_secret_name(name) else sanitize(value, _VALUE_LENGTH)
        for name, value in list(detail.items())[:_MAX_DETAILS]
    }
    return json.dumps(safe, sort_keys=True, separators=(",", ":"))
