"""How long a graceful shutdown may take, after the DRAIN_SECONDS in which clients can go elsewhere."""

from __future__ import annotations

REPLACEMENT_DRAIN_S = 2.0  # in place of DRAIN_SECONDS, before a process is replaced for a stuck thread
THREADS_LIMIT_S = 0.5  # for worker threads to end, whose results nobody awaits any more
CUT_OFF_S = 4.5  # after which predictions in flight are ended with a problem document
RESPONSES_LIMIT_S = 5  # for the requests in flight
SHUTDOWN_LIMIT_S = 7.5  # for those and for closing databases, queues and files
# Where there are workers, their parent kills one that is later than that, and then has time to report it.
WORKER_LIMIT_S = 7.75
GATEWAY_LIMIT_S = 8.0
