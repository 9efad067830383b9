"""That the gateway is about to end: known to every answer, and to whoever asks whether it is ready."""

from __future__ import annotations


class Draining:
    """Begins once, at the signal to stop. Answers then tell their clients to take another connection."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        self.begun = True
