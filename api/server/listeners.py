"""Listening sockets, bound before anything else starts, so that a port in use is reported at once."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any

from api.errors import SettingsError

_EVERY_IPV4, _EVERY_IPV6 = "0.0.0.0", "::"  # noqa: S104  (bound only where HOST says so)
# IPv6 is absent from the kernel, or is switched off for the network interfaces.
_IPV6_OFF = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def bind_listeners(host: str, port: int, setting: str, option: str | None = None) -> list[socket.socket]:
    """Bind a socket to every address of `host`. `::` means all IPv4 and all IPv6 addresses.

    If IPv6 is off, IPv6 addresses are skipped as long as there is another address. All sockets have the same port, even
    if `port` is 0. Raises SettingsError, which names `setting`, and the command's `option` if the port is in use.
    """
    bound: list[socket.socket] = []
    skipped: OSError | None = None
    try:
        for family, address in _find_addresses(host, port):
            try:
                bound.append(_bind(family, (address[0], bound[0].getsockname()[1] if bound else port, *address[2:])))
            except OSError as error:
                if family != socket.AF_INET6 or error.errno not in _IPV6_OFF:
                    raise
                skipped = error
        if not bound and skipped is not None:
            raise skipped
    except (OSError, UnicodeError) as error:
        for listener in bound:
            listener.close()
        raise _explain(error, host, port, setting, option) from None
    return bound


def local_url(scheme: str, host: str, port: int) -> str:
    """Return the URL at which this machine reaches a server that listens on `host`."""
    host = "127.0.0.1" if host in (_EVERY_IPV4, _EVERY_IPV6) else host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _find_addresses(host: str, port: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield families and socket addresses. Raises OSError, and UnicodeError for a name that IDNA cannot encode."""
    # One socket for both families would report clients' IPv4 addresses as IPv6 ones, such as ::ffff:192.0.2.1.
    for each in (_EVERY_IPV4, _EVERY_IPV6) if host == _EVERY_IPV6 else (host,):
        for family, _, _, _, address in socket.getaddrinfo(
            each, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            yield family, address


def _bind(family: int, address: tuple[Any, ...]) -> socket.socket:
    """Raises OSError."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _explain(error: OSError | UnicodeError, host: str, port: int, setting: str, option: str | None) -> SettingsError:
    if isinstance(error, UnicodeError | socket.gaierror) or error.errno in _IPV6_OFF:
        return SettingsError(f"HOST: {host} is not an address of this machine. Use :: for all addresses.")
    if error.errno == errno.EADDRINUSE:
        names = setting if option is None else f"{option} or {setting}"
        return SettingsError(f"Port {port} is already in use. Choose another with {names}.")
    return SettingsError(f"{setting}: cannot listen on {host}, port {port}: {error.strerror}.")
