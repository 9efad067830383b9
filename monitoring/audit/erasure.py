"""Erases the address, the request id and the details from a person's audit entries, in a way that verification accepts.

An erased entry keeps its other fields, including its hash, which no longer matches. A later entry records the digest of
the remaining fields, so that verification still detects any other change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from msgspec.structs import astuple, replace

from monitoring.audit.events import AuditEntry, AuditEvent, new_event

ERASED = ("audit", "erased")  # event and outcome of an entry that records erasures
ERASURE_CHUNK = 100  # erased entries that one such entry records
ERASED_DETAIL = '{"erased":"true"}'


def erase_content(entry: AuditEntry) -> AuditEntry:
    """Return what remains of an erased entry."""
    return replace(entry, address="", request_id="", detail=ERASED_DETAIL)


def is_erased(entry: AuditEntry) -> bool:
    return entry == erase_content(entry)


def build_record(entries: Sequence[AuditEntry], subject: str, actor: str) -> AuditEvent:
    """Build the event that records the erasure of these entries: its detail maps their numbers to their digests."""
    digests = {str(entry.seq): compute_digest(entry) for entry in entries}
    event = new_event(*ERASED, actor=actor, target=f"user:{subject}")
    return replace(event, detail=json.dumps(digests, separators=(",", ":")))


def compute_digest(entry: AuditEntry) -> str:
    """Return the SHA-256, in hex, of all fields of an erased entry, as one JSON list in ASCII without spaces."""
    return hashlib.sha256(json.dumps(astuple(entry), separators=(",", ":")).encode()).hexdigest()


class ErasureCheck:
    """Collects the erased entries that a verification has read, until it reaches the records of their erasure."""

    def __init__(self) -> None:
        self._unrecorded: dict[int, str] = {}

    def pass_erased(self, entry: AuditEntry) -> None:
        self._unrecorded[entry.seq] = compute_digest(entry)

    def pass_record(self, record: AuditEntry) -> None:
        """Confirm the entries whose digests the record contains."""
        digests = record.to_dict()["detail"]
        for seq, digest in digests.items() if isinstance(digests, dict) else ():
            if seq.isdecimal() and self._unrecorded.get(int(seq)) == digest:
                del self._unrecorded[int(seq)]

    def find_unrecorded(self) -> int | None:
        """Return the number of the first erased entry that no record confirms, or None."""
        return min(self._unrecorded, default=None)
