"""The cost of one prediction for each part of a deployment, as measured by `python -m bench.parts.capacity`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MEASURED = Path(__file__).with_name("measured.json")


@dataclass(frozen=True, slots=True)
class Observation:
    """What callers got from one real gateway that needs no inference, with a number of connections.

    The callers ran on the same machine, and used `caller_s` of processor time for each request.
    """

    connections: int
    rate: float
    median_ms: float
    caller_s: float


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of processor time, unless another unit is named.

    A gateway uses `request_s` for a request without inference and without its record. For a transaction it uses
    `writer_transaction_s` and for each entry `writer_entry_s`, and PostgreSQL `transaction_s` and `entry_s`. For
    `commit_wait_s` a transaction waits for the network, the disk and changes of process.
    `inference_s` are percentiles of the time that an engine takes for one image, from the 1st to the 99th.
    """

    machine: str
    date: str
    request_s: float
    writer_transaction_s: float
    writer_entry_s: float
    inference_s: Sequence[float]
    redis_s: float
    redis_bytes: float  # for each caller and limit
    transaction_s: float
    entry_s: float
    commit_wait_s: float
    connections: int  # that a gateway under load has to PostgreSQL
    entry_bytes: float  # in PostgreSQL's tables and indexes
    wal_bytes: float
    observations: Sequence[Observation]


def read_costs(path: Path = MEASURED) -> Costs:
    document = json.loads(path.read_text())
    observations = [Observation(**observation) for observation in document.pop("observations")]
    return Costs(**document, observations=observations)


def write_costs(costs: Costs, path: Path = MEASURED) -> None:
    path.write_text(json.dumps(asdict(costs), indent=1) + "\n")
