"""What happened, in words that are safe to keep; and its place in the chain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row
from uuid_utils import uuid7

from monitoring.redaction import REDACTED, is_secret_name, redact

GENESIS = "0" * 64  # what the first entry names as its previous hash
PRUNED = ("audit", "pruned")  # the oldest entries were removed
NAME_LENGTH = 320

_WORD_LENGTH = 32
_SHORT_LENGTH = 64
_VALUE_LENGTH = 256
_VALUES = 16
_VARIOUS = '{"from":"various"}'
_LOOKED_AT = 4096  # characters; masking what is then cut off would be wasted time


@dataclass(frozen=True, slots=True)
class Event:
    """One act, or `count` equal ones since `at` (UTC). Make it with `new_event`."""

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
    def kind(self) -> tuple[str, ...]:
        """What equal events have in common: everything but when, and in which request."""
        return self.event, self.outcome, self.actor, self.target, self.address, self.detail

    def again(self, count: int) -> Event:
        """This event, and `count` more like it."""
        return replace(self, count=self.count + count)

    def without_particulars(self) -> Event:
        """What alone is kept of one event among very many."""
        return replace(self, actor="", target="", address="", request_id="", detail=_VARIOUS)


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the record. `hash` covers every other field, `previous` is the hash of the entry before."""

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

    def computed_hash(self) -> str:
        """SHA-256 over the fields in their order, as one JSON list in ASCII without spaces."""
        fields = json.dumps(astuple(self)[:-1], separators=(",", ":"))
        return hashlib.sha256(fields.encode()).hexdigest()

    def document(self) -> dict[str, Any]:
        """The entry as JSON shows it, with the detail as an object where it is one."""
        try:
            detail = json.loads(self.detail)
        except ValueError:  # somebody changed it
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
) -> Event:
    """What happened just now, with secrets masked, control characters escaped and lengths capped."""
    return Event(
        datetime.now(UTC),
        safe_text(event, _WORD_LENGTH),
        safe_text(outcome, _WORD_LENGTH),
        safe_text(actor, NAME_LENGTH),
        safe_text(target, NAME_LENGTH),
        safe_text(address, _SHORT_LENGTH),
        safe_text(request_id, _SHORT_LENGTH),
        _safe_detail(detail or {}),
    )


def entry_of(event: Event, seq: int, previous: str) -> Entry:
    """The event as the next entry of the chain."""
    entry = Entry(
        seq=seq,
        id=str(uuid7()),
        at=written_time(event.at),
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
    return replace(entry, hash=entry.computed_hash())


def entry_from(row: Row[Any]) -> Entry:
    """The entry in a row of the record's table."""
    return Entry(**row._mapping)


def pruned_detail(seq: int, digest: str) -> dict[str, str]:
    """The detail of the entry that tells of a removal: the last one that is gone, and its hash."""
    return {"through": str(seq), "hash": digest}


def written_time(at: datetime) -> str:
    """UTC in ISO 8601, to the microsecond: sorted as text it is sorted by time."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def safe_text(text: str, length: int) -> str:
    """One line of printable characters, without credentials, of at most `length` characters."""
    masked = redact(text[:_LOOKED_AT])
    escaped = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in masked)
    return escaped if len(escaped) <= length else f"{escaped[: length - 1]}…"


def _safe_detail(detail: Mapping[str, str]) -> str:
    kept = {
        safe_text(name, _WORD_LENGTH): REDACTED if is_secret_name(name) else safe_text(value, _VALUE_LENGTH)
        for name, value in list(detail.items())[:_VALUES]
    }
    return json.dumps(kept, sort_keys=True, separators=(",", ":"))
