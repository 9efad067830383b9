"""The version that an alias pointed to at a given time, from its recorded moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from model.registry.history import AliasHistory
from model.registry.moves import AliasMove, Change

START = datetime(2026, 11, 3, 10, tzinfo=UTC)


def make_move(hour: int, before: str | None, after: str | None, alias: str = "production") -> AliasMove:
    at = (START + timedelta(hours=hour)).isoformat(timespec="milliseconds")
    return AliasMove(f"move-{hour}", at, "cli:olga", f"reason {hour}", {alias: Change(before, after)})


def find(history: AliasHistory, hour: float) -> tuple[str | None, str | None] | None:
    """Return the version at that time, and the reason for the move to it."""
    period = history.find(START + timedelta(hours=hour))
    return None if period is None else (period.version, period.move.why if period.move else None)


def test_each_moment_has_the_last_move_before_it() -> None:
    """An alias points to the version of its last move; before the first move, nothing is known."""
    moves = [make_move(0, None, "1.0"), make_move(2, "1.0", "1.1"), make_move(3, "1.1", None)]
    history = AliasHistory("production", [*moves, make_move(4, None, "9.9", alias="candidate")])
    assert [find(history, hour) for hour in (-1, 0, 1.9, 2, 5)] == [
        None,
        ("1.0", "reason 0"),
        ("1.0", "reason 0"),
        ("1.1", "reason 2"),
        (None, "reason 3"),
    ]
    history.check_present(None)
    assert history.gaps == []


def test_what_the_first_move_replaced_is_known_without_its_beginning() -> None:
    """After pruning, the version before the first recorded move is known, but not since when."""
    history = AliasHistory("production", [make_move(2, "1.0", "1.1")])
    assert find(history, -100) == ("1.0", None)
    assert find(history, 2) == ("1.1", "reason 2")


def test_a_repeated_record_is_one_move() -> None:
    """A move that was recorded again after a crash counts once."""
    first, second = make_move(0, None, "1.0"), make_move(1, "1.0", "1.1")
    history = AliasHistory("production", [first, first, second, first])
    assert [period.version for period in history.periods] == ["1.0", "1.1"]
    assert history.gaps == []


def test_missing_moves_are_named() -> None:
    """A move that does not start where the last one ended, and an alias that now points elsewhere, are gaps."""
    history = AliasHistory("production", [make_move(0, None, "1.0"), make_move(1, "1.1", "1.2")])
    assert len(history.gaps) == 1
    assert "moved from 1.0 to 1.1, and that move has no record here" in history.gaps[0]
    history.check_present("1.0")
    assert "points to 1.0 now, but the record ends with 1.2" in history.gaps[1]
