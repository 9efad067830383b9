"""Verifies the chain of checkpoints, and collects what they claim about the writers' chains."""

from __future__ import annotations

from collections import deque

from monitoring.chains.anchors import GENESIS, Anchor, AnchorSearch
from monitoring.chains.signing import Verifier
from monitoring.ledger.entries import Checkpoint, Claim, Stump, parse_claims, sanitize_name
from monitoring.ledger.verification.report import LedgerReport


class CheckpointVerification:
    """The position of a verification in the chain of checkpoints."""

    def __init__(self, report: LedgerReport, verifier: Verifier, anchor: Anchor | None) -> None:
        self.number = 0
        self._report = report
        self._verifier = verifier
        self._hash = GENESIS
        self._begun = False
        self._pruned = 0  # the number of the last pruned checkpoint
        self._claims: dict[str, deque[Claim]] = {}  # by writer: the claims that its chain has not reached yet
        self._search = AnchorSearch(anchor)
        self._search.pass_link(0, GENESIS)

    def check_stump(self, stump: Stump, name: str) -> None:
        """Start after the pruned checkpoints; `name` begins the sentences of problems."""
        self._check_order(name)
        if self._begun:
            self._report.add_problem(f"{name} is repeated, or comes too late.")
        self._begun = True
        self.number = self._pruned = stump.seq
        self._hash = stump.hash
        self._report.anchor = Anchor(stump.seq, stump.hash)
        self._search.pass_link(stump.seq, stump.hash)

    def check_checkpoint(self, checkpoint: Checkpoint) -> None:
        name = f"Checkpoint {checkpoint.number}"
        self._check_order(name)
        self._begun = True
        self._check_link(checkpoint, name)
        # With a line feed in a field, the same text could be divided into other fields.
        if "\n" in checkpoint.at + checkpoint.previous or checkpoint.hash != checkpoint.compute_hash():
            self._report.add_problem(f"{name} was changed: its hash does not match its content.")
        statement = checkpoint.statement()
        self._report.check_signature(self._verifier, name, statement, checkpoint.key, checkpoint.signature)
        self._collect_claims(name, checkpoint.heads)
        self.number, self._hash = checkpoint.number, checkpoint.hash
        self._report.checkpoints += 1
        self._report.anchor = Anchor(checkpoint.number, checkpoint.hash)
        self._search.pass_link(checkpoint.number, checkpoint.hash)

    def check_claim(self, writer: str, seq: int, digest: str) -> bool:
        """Check the claims about a writer's chain up to this entry, the newest so far; return whether one names it."""
        claims = self._claims.get(writer, deque())
        while claims and claims[0].seq < seq:
            claims.popleft()
        claimed = bool(claims) and claims[0].seq == seq
        if claimed and claims.popleft().hash != digest:
            self._report.add_problem(f"Entry {seq} of {sanitize_name(writer)} is not the one that a checkpoint names.")
        return claimed

    def check_end(self) -> None:
        """Check, after the last record, that no checkpoint, no claimed entry and no anchor is missing."""
        has_window = self._report.header.has_window
        # Opening a chain writes a checkpoint, and the newest one is never pruned.
        has_content = self._report.writers or self._begun
        if has_content and not self._report.checkpoints and not has_window:
            self._report.add_problem(f"Checkpoint {self.number + 1} is missing: there are no checkpoints.")
        # The checkpoints of a window name entries outside of it, too.
        for claims in self._claims.values() if not has_window else ():
            for claim in claims:
                self._report.add_problem(
                    f"Entry {claim.seq} of {sanitize_name(claim.writer)}, which a checkpoint names, is missing."
                )
        anchor = self._search.anchor
        if anchor is not None and not self._search.found:
            self._report.add_problem(f"The anchor, checkpoint {anchor.number}, {self._explain_missing(anchor)}.")

    def _explain_missing(self, anchor: Anchor) -> str:
        if anchor.number < self._pruned:
            return "was pruned: give a newer one"
        if self._report.header.has_window and not self._search.number_passed:
            return "is not in this window: verify the whole ledger against it"
        return "is missing, or was replaced"

    def _check_order(self, name: str) -> None:
        if self._report.writers:
            self._report.add_problem(f"{name} comes after a writer's chain: checkpoints come before all chains.")

    def _check_link(self, checkpoint: Checkpoint, name: str) -> None:
        follows = checkpoint.number == self.number + 1
        if checkpoint.number <= self.number:
            self._report.add_problem(f"{name} comes after checkpoint {self.number}.")
        elif not follows and not self._report.header.has_window:
            self._report.add_problem(
                f"Checkpoint {self.number + 1} is missing: checkpoint {checkpoint.number} comes next."
            )
        elif follows and checkpoint.previous != self._hash:
            self._report.add_problem(f"{name} does not follow checkpoint {self.number}: one of the two was replaced.")

    def _collect_claims(self, name: str, heads: str) -> None:
        try:
            claims = parse_claims(heads)
        except ValueError:
            self._report.add_problem(f"{name} cannot be read.")
            return
        # The last claim covers a whole chain; the piece of a chain in a window may end at any claim.
        count = None if self._report.header.has_window else 1
        for claim in claims:
            earlier = self._claims.setdefault(claim.writer, deque(maxlen=count))
            if earlier and claim.seq <= earlier[-1].seq:
                self._report.add_problem(
                    f"{name} names entry {claim.seq} of {sanitize_name(claim.writer)}, and an earlier one names entry "
                    f"{earlier[-1].seq}: the chain was cut back."
                )
            earlier.append(claim)
