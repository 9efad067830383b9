"""Listening sockets, bound before anything else starts, so that a port in use is reported at once."""

from __future__ import annotations

import errno
import socket

from api.errors import SettingsError


def bind_listeners(host: str, port: int, setting: str) -> list[socket.socket]:
    """Bind a socket to every address of `host`. Raises SettingsError, which names `setting`."""
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            bound.append(listener := socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
    except OSError as error:
        for listener in bound:
            listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(f"Port {port} is already in use. Choose another with {setting}=") from None
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(f"HOST: {host} is no address of this machine. Use 0.0.0.0 for all of them.") from None
        raise SettingsError(f"{setting}: cannot listen on {host}, port {port}: {error.strerror}.") from None
    return bound
