"""A batch of entries that are committed together, and the result for each."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from monitoring.ledger.charges import Charge, ChargeRefusal
from monitoring.ledger.entries import EntryDraft, EntryWithPayload

CommitResult = Exception | None  # None for an entry that is durable, and whose charge was accepted


class PendingEntry(Struct, frozen=True):
    """An entry that a caller waits for, and its charge."""

    draft: EntryDraft
    charge: Charge | None


class Batch:
    """Drafts, charges and results of pending entries, and the chain entries built from them."""

    def __init__(self, pending: Sequence[PendingEntry]) -> None:
        self._pending = pending
        self.reset()

    def reset(self) -> None:
        """Discard all results, in order to commit the batch to another chain."""
        self.drafts = [entry.draft for entry in self._pending]
        self.optional_charges = [entry.charge for entry in self._pending]
        self.results: list[CommitResult] = [None] * len(self._pending)
        self.linked: list[EntryWithPayload] = []

    @property
    def charges(self) -> list[Charge]:
        return [charge for charge in self.optional_charges if charge is not None]

    def apply_refusals(self, refusals: Sequence[ChargeRefusal | None]) -> None:
        """Turn the entries whose charge was rejected into entries of rejected requests, without a charge.

        `refusals` corresponds to `charges`.
        """
        charged = [index for index, charge in enumerate(self.optional_charges) if charge is not None]
        for index, refusal in zip(charged, refusals, strict=True):
            if refusal is not None:
                self.drafts[index] = self.drafts[index].as_refusal(refusal.status, refusal.code)
                self.optional_charges[index] = None
                self.results[index] = refusal.error
