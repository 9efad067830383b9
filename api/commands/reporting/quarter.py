"""A quarter of a year, such as 2026Q4."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import typer
from msgspec import Struct

_NAME = re.compile(r"(\d{4})Q([1-4])")
_MONTHS = 3


class Quarter(Struct, frozen=True):
    """`number` is 1 to 4."""

    year: int
    number: int

    def __str__(self) -> str:
        return f"{self.year}Q{self.number}"

    @property
    def start(self) -> datetime:
        return datetime(self.year, 1 + _MONTHS * (self.number - 1), 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The beginning of the next quarter."""
        return Quarter(self.year + self.number // 4, self.number % 4 + 1).start

    @property
    def last_day(self) -> datetime:
        return self.end - timedelta(days=1)

    @property
    def previous(self) -> Quarter:
        return Quarter(self.year, self.number - 1) if self.number > 1 else Quarter(self.year - 1, 4)

    @property
    def days(self) -> Iterator[str]:
        """The dates of the quarter, such as 2026-10-01."""
        for number in range((self.end - self.start).days):
            yield f"{self.start + timedelta(days=number):%Y-%m-%d}"

    @property
    def months(self) -> tuple[str, ...]:
        """The months of the quarter, such as 2026-10, 2026-11 and 2026-12."""
        return tuple(f"{self.year}-{self.start.month + each:02}" for each in range(_MONTHS))


def parse_quarter(text: str) -> Quarter:
    """Raises BadParameter."""
    match = _NAME.fullmatch(text.upper())
    if match is None or not 1 < int(match[1]) < 9999:
        raise typer.BadParameter(f"{text} is not a quarter such as 2026Q4.")
    return Quarter(int(match[1]), int(match[2]))
