"""The error by which a transport or the pipeline reports that the client has disconnected."""

from __future__ import annotations


class ClientDisconnected(Exception):
    """The client closed its connection before it got a response."""

    code = "client_left"
