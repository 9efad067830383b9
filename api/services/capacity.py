"""The number of predictions that a process can make at once, and the memory that it keeps free for their images."""

from __future__ import annotations

from api.settings import Settings
from monitoring.machine.cgroups import count_processors, memory_limit_bytes

# The memory of an idle process without a session, and the memory that each inference thread adds with its session.
# Measured: 192, 232, 316 and 477 MB with 1, 2, 4 and 8 threads.
BASE_BYTES = 150 << 20
SESSION_BYTES = 40 << 20
# How much a process grows after its start. Measured: 12 MB under load, and 38 MB while it hashes two passwords. This
# is enough, because some 50 MB of what an idle process uses are library pages, which the kernel can drop.
GROWTH_BYTES = 30 << 20
# Enough to decode photographs of a few megapixels: with less, the gateway would reject nearly every image.
MIN_BYTES = 32 << 20
# These threads mostly wait for inference engines, so their number does not depend on the machine.
ENGINE_THREADS = 16

# Bytes that a session takes for each byte of its model file, estimated from EfficientNetB0: 40 MB for a 16 MB file.
SESSION_BYTES_PER_FILE_BYTE = 2.5


def estimate_model_bytes(file_bytes: int, threads: int) -> int:
    """Return the memory that a model with a file of this size takes in a process with this many inference threads."""
    return threads * max(SESSION_BYTES, int(SESSION_BYTES_PER_FILE_BYTE * file_bytes))


def count_inference_threads(settings: Settings) -> int:
    """Return the inference threads of each worker process: MODEL__WORKERS, or else as many as fit the machine.

    Threads that wait for engines put no load on the machine, so their number is fixed.
    """
    if settings.model.workers is not None:
        return settings.model.workers
    return ENGINE_THREADS if settings.model.uses_engines else count_local_threads(settings)


def count_local_threads(settings: Settings) -> int:
    """Return how many threads fit the machine if they compute the predictions themselves."""
    return fit_inference_threads(count_processors(), memory_limit_bytes(), settings.web_concurrency)


def fit_inference_threads(processors: int, limit_bytes: int, workers: int) -> int:
    """Return one thread per processor of a worker process, which has an even share of processors and memory.

    Return fewer if their sessions would leave less than twice MIN_BYTES of memory for images.
    """
    for_sessions = limit_bytes // workers - BASE_BYTES - GROWTH_BYTES - 2 * MIN_BYTES
    return max(1, min(processors // workers, for_sessions // SESSION_BYTES))
