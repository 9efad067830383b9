"""The form in which entries are spooled."""

from __future__ import annotations

import json

from msgspec import Struct
from msgspec.structs import astuple

from monitoring.ledger.charges import Charge
from monitoring.ledger.entries import EntryWithPayload, LedgerEntry, Payload


class SpooledEntry(Struct, frozen=True):
    """A linked entry, and the charge that is to be recorded with it."""

    linked: EntryWithPayload
    charge: Charge | None

    def encode(self) -> str:
        parts = astuple(self.linked.entry), astuple(self.linked.payload), self.charge
        return json.dumps(parts, separators=(",", ":"))


def decode_spooled(text: str) -> SpooledEntry:
    entry, payload, charge = json.loads(text)
    return SpooledEntry(EntryWithPayload(LedgerEntry(*entry), Payload(*payload)), charge)
