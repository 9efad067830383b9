"""How long a graceful shutdown may take, after the DRAIN_SECONDS in which clients can go elsewhere."""

from __future__ import annotations

RESPONSES_LIMIT_S = 5  # for the requests in flight
SHUTDOWN_LIMIT_S = 7.5  # for those and for closing databases, queues and files
