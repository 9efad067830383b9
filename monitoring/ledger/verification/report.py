"""The result of verifying a ledger, and the checks that all parts of the verification use."""

from __future__ import annotations

from msgspec import field

from monitoring.chains.reports import VerificationReport
from monitoring.chains.signing import Verifier
from monitoring.ledger.entries import sanitize_name
from monitoring.ledger.records import StreamHeader

MAX_PROBLEMS = 20


class LedgerReport(VerificationReport):
    """`withheld` and `erased` count entries without a payload; there are at most MAX_PROBLEMS problems.

    The anchor is the newest checkpoint.
    """

    header: StreamHeader = field(default_factory=StreamHeader)
    writers: int = 0
    withheld: int = 0
    erased: int = 0
    checkpoints: int = 0

    def add_problem(self, problem: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem[0].upper() + problem[1:])

    def check_signature(self, verifier: Verifier, name: str, statement: str, key: str, signature: str) -> None:
        """Add a problem unless one of the verifier's keys has signed the statement; `name` begins the sentence."""
        if not verifier.has_key(key):
            self.add_problem(f"{name} is signed by the unknown key {sanitize_name(key)}. Give its public key.")
        elif not verifier.is_valid(statement, key, signature):
            self.add_problem(f"{name} was changed: its signature does not match its content.")
