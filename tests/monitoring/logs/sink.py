"""A log that a test reads line by line."""

from __future__ import annotations

import io
import json
from typing import Any


class Sink(io.StringIO):
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def line(self) -> dict[str, Any]:
        (only,) = self.lines()
        return only
