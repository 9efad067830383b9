"""Limits how many connections a process accepts."""

from __future__ import annotations

import resource
from collections import Counter

from auth.networks import client_network

MAX_CONNECTIONS = 1000  # of one process
SPARE_DESCRIPTORS = 64  # for databases, the spool, logs and outgoing requests


class ConnectionLimiter:
    """Limits the connections in total, and of each client to half the total unless the gateway is behind proxies.

    All addresses of an IPv6 network count as one client.
    """

    def __init__(self, *, behind_proxies: bool) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.capacity = max(1, min(MAX_CONNECTIONS, descriptors - SPARE_DESCRIPTORS))
        self._capacity_of_client = self.capacity if behind_proxies else max(1, self.capacity // 2)
        self._slots: Counter[str] = Counter()

    def acquire(self, address: str) -> bool:
        """Take a slot for a connection from `address`. Returns False if none is free."""
        client = client_network(address)
        if self._slots.total() >= self.capacity or self._slots[client] >= self._capacity_of_client:
            return False
        self._slots[client] += 1
        return True

    def release(self, address: str) -> None:
        client = client_network(address)
        self._slots[client] -= 1
        if not self._slots[client]:
            del self._slots[client]
