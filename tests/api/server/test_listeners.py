"""The sockets that HOST and PORT describe."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from api.errors import SettingsError
from api.server.listeners import bind_listeners, local_url
from tests.support.ports import free_port


@contextmanager
def bound(host: str, port: int = 0) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(listener) for listener in bind_listeners(host, port, "PORT")]


@pytest.fixture
def no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a kernel without IPv6, in which creating an IPv6 socket fails."""
    make = socket.socket

    def create(family: int, *arguments: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, *arguments)

    monkeypatch.setattr("api.server.listeners.socket.socket", create)


def test_two_colons_are_every_address() -> None:
    """HOST=:: binds one port for IPv4 and IPv6, and each client keeps the address of its own family."""
    with bound("::", free_port()) as listeners:
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
        for listener, address in zip(listeners, ("127.0.0.1", "::1"), strict=True):
            listener.listen()
            with socket.create_connection((address, listener.getsockname()[1]), timeout=10):
                connection, peer = listener.accept()
                connection.close()
                assert peer[0] == address


@pytest.mark.usefixtures("no_ipv6")
def test_ipv6_is_skipped_where_it_is_off() -> None:
    """Without IPv6, HOST=:: binds every IPv4 address, and a HOST that is an IPv6 address is an error."""
    with bound("::") as listeners:
        assert [listener.getsockname()[0] for listener in listeners] == ["0.0.0.0"]  # noqa: S104
    with pytest.raises(
        SettingsError, match=r"^HOST: ::1 is not an address of this machine\. Use :: for all addresses\.$"
    ):
        bind_listeners("::1", 0, "PORT")


def test_a_port_that_one_family_has_taken_is_in_use() -> None:
    """HOST=:: fails if the port is taken for IPv6 only, and leaves nothing bound."""
    port = free_port()  # which no connection of another process takes before the last line binds it
    with bound("::1", port) as (other,):
        other.listen()
        in_use = rf"^Port {port} is already in use\. Choose another with"
        with pytest.raises(SettingsError, match=rf"{in_use} METRICS_PORT\.$"):
            bind_listeners("::", port, "METRICS_PORT")
        with pytest.raises(SettingsError, match=rf"{in_use} --port or PORT\.$"):
            bind_listeners("::", port, "PORT", "--port")
    with ExitStack() as stack:
        assert len([stack.enter_context(listener) for listener in bind_listeners("::", port, "PORT")]) == 2


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("::", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),  # noqa: S104
        ("::1", "http://[::1]:8000"),
        ("192.0.2.1", "http://192.0.2.1:8000"),
    ],
)
def test_the_local_url_follows_the_host(host: str, url: str) -> None:
    """The local URL has 127.0.0.1 if the gateway listens on all addresses, and otherwise HOST."""
    assert local_url("http", host, 8000) == url
