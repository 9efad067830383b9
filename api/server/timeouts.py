"""The time limits of a graceful shutdown, after the DRAIN_SECONDS in which clients move to other gateways."""

from __future__ import annotations

REPLACEMENT_DRAIN_S = 2.0  # instead of DRAIN_SECONDS, before a process with a stuck thread is replaced
THREADS_LIMIT_S = 0.5  # for worker threads to end, once no request awaits their results
CUT_OFF_S = 4.5  # after which predictions in flight are ended with a problem document
RESPONSES_LIMIT_S = 5  # for requests in flight to complete
SHUTDOWN_LIMIT_S = 7.5  # for requests in flight to complete, and for closing databases, queues and files
# With several workers, their parent kills a worker that exceeds this limit, and then has time to report that.
WORKER_LIMIT_S = 7.75
GATEWAY_LIMIT_S = 8.0
