"""The result of verifying a chain."""

from __future__ import annotations

from msgspec import Struct, field

from monitoring.chains.anchors import GENESIS, Anchor

_START = Anchor(0, GENESIS)


class VerificationReport(Struct):
    """`entries` is the number of verified entries; `anchor` is the last verified link, for the next verification.

    `problems` holds one sentence for each problem.
    """

    entries: int = 0
    anchor: Anchor = _START
    problems: list[str] = field(default_factory=list)

    @property
    def problem(self) -> str | None:
        """The first problem, if there is one."""
        return self.problems[0] if self.problems else None
