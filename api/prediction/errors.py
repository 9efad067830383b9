"""The error that a transport and the pipeline tell each other about a client that is gone."""

from __future__ import annotations


class ClientDisconnected(Exception):
    """The client closed its connection before the response: nothing more can be sent to it."""

    code = "client_left"
