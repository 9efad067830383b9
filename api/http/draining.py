"""Whether the gateway is shutting down; responses, readiness and the server share this state."""

from __future__ import annotations


class Draining:
    """Begins once, at the signal to stop. From then on each response asks its client to close the connection."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        self.begun = True
