"""Which connections are dropped when all together hold too many bytes."""

from __future__ import annotations

from dataclasses import dataclass

from api.server.connections.memory import ConnectionMemory


@dataclass(eq=False)
class Connection:
    held_bytes: int
    dropped: bool = False

    def drop(self) -> None:
        self.dropped = True


def make_connections(memory: ConnectionMemory, *sizes: int) -> list[Connection]:
    connections = [Connection(size) for size in sizes]
    for connection in connections:
        memory.add(connection)
    return connections


def test_the_largest_are_dropped() -> None:
    """When more than the limit is held, the largest connections are dropped until seven eighths of it remain."""
    memory = ConnectionMemory(800)
    connections = make_connections(memory, 100, 350, 10, 340, 90)
    memory.count_received(801)
    assert [connection.dropped for connection in connections] == [False, True, False, False, False]


def test_bytes_that_were_read_do_not_count() -> None:
    """Received bytes that connections no longer hold cause no drop."""
    memory = ConnectionMemory(800)
    connections = make_connections(memory, 100, 200)
    for _ in range(100):
        memory.count_received(700)
    assert not any(connection.dropped for connection in connections)


def test_a_closed_connection_does_not_count() -> None:
    """A connection that was discarded no longer counts."""
    memory = ConnectionMemory(800)
    first, second = make_connections(memory, 700, 500)
    memory.discard(first)
    memory.count_received(900)
    assert not first.dropped
    assert not second.dropped
