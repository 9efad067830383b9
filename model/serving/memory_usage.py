"""The bytes reserved by each caller, and the rules that decide whether more may be reserved (ADR 0012)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from msgspec import Struct

K = TypeVar("K")

# Amounts of at most 1/32 of the total are small. 1/8 of the total is reserved for small amounts.
_SMALL_FRACTION = 32
_SMALL_RESERVE_FRACTION = 8


class Allocation(Struct, eq=False):
    """The bytes reserved by one request, first to read its body, then to decode its image."""

    caller: str
    amount: int = 0
    is_reading: bool = True


class MemoryUsage:
    """Keeps sums over all allocations. Each rule limits one of these sums to a fraction of `total`."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.reserved = 0
        self._small_reserve = total // _SMALL_RESERVE_FRACTION
        self._small = 0
        self._reading = 0
        self._small_by_caller: Counter[tuple[str, bool]] = Counter()  # by caller and whether it is reading
        self._large_reading_by_caller: Counter[str] = Counter()

    @property
    def largest(self) -> int:
        """The most that one request may reserve."""
        return self.total - self._small_reserve

    def is_small(self, amount: int) -> bool:
        return amount <= self.total // _SMALL_FRACTION

    def resize(self, allocation: Allocation, amount: int) -> None:
        self._add(allocation, -1)
        allocation.amount = amount
        self._add(allocation, 1)

    def start_decoding(self, allocation: Allocation) -> None:
        """Count the allocation's bytes as used for decoding instead of reading."""
        self._add(allocation, -1)
        allocation.is_reading = False
        self._add(allocation, 1)

    def fits(
        self, allocation: Allocation, amount: int, *, large_waits: bool, without: Sequence[Allocation] = ()
    ) -> bool:
        """Whether the allocation may be resized to `amount` if the allocations of `without` are freed.

        `large_waits` says whether a large request is waiting for memory.
        """
        others = self.reserved - allocation.amount
        if without:
            others -= sum(one.amount for one in without)
        if others + amount > self.total:
            return False
        if allocation.is_reading and not self._may_read(allocation.caller, amount):
            return False
        if self.is_small(amount):
            own = self._sum_small(allocation.caller) - self._get_small_part(allocation) + amount
            return own <= self._small_reserve or not large_waits
        other_small = self._small - sum(self._get_small_part(one) for one in (allocation, *without))
        return others - other_small + amount <= self.largest

    def _may_read(self, caller: str, amount: int) -> bool:
        """Limit bodies that are being read, so that slow uploads leave memory for decoding.

        All bodies together may take 3/4 of the total, or 1/2 if the new one is large. One caller's small bodies may
        take 1/4, and so may its large ones, except that its first large body may exceed that.
        """
        reading = self._reading + amount
        if self.is_small(amount):
            own = self._small_by_caller[caller, True] + amount
            return reading <= self.total * 3 // 4 and own <= self.total // 4
        if not self._reading:
            return True  # a single body may be of any size
        own = self._large_reading_by_caller[caller]
        return reading <= self.total // 2 and (not own or own + amount <= self.total // 4)

    def _sum_small(self, caller: str) -> int:
        return self._small_by_caller[caller, True] + self._small_by_caller[caller, False]

    def _get_small_part(self, allocation: Allocation) -> int:
        return allocation.amount if self.is_small(allocation.amount) else 0

    def _add(self, allocation: Allocation, sign: int) -> None:
        if not allocation.amount:
            return
        amount, is_reading = sign * allocation.amount, allocation.is_reading
        small = sign * self._get_small_part(allocation)
        self.reserved += amount
        self._small += small
        if small:
            _add_to_counter(self._small_by_caller, (allocation.caller, is_reading), small)
        if is_reading:
            self._reading += amount
            if not small:
                _add_to_counter(self._large_reading_by_caller, allocation.caller, amount)


def _add_to_counter(counter: Counter[K], key: K, change: int) -> None:
    """Add `change`, and drop a sum of zero, so that callers without requests take no memory."""
    counter[key] += change
    if not counter[key]:
        del counter[key]
