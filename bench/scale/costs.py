"""The cost of one prediction for each part of a deployment, as measured by `python -m bench.parts.capacity`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MEASURED = Path(__file__).with_name("measured.json")


@dataclass(frozen=True, slots=True)
class Observation:
    """The throughput and median latency of one real gateway without inference, at a number of connections.

    The load generator ran on the same machine, and used `caller_s` seconds of processor time for each request.
    """

    connections: int
    rate: float
    median_ms: float
    caller_s: float


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of processor time, unless another unit is named.

    A gateway uses `request_s` for a request, without inference and without recording it. To record requests, it uses
    `writer_transaction_s` for each transaction and `writer_entry_s` for each entry, and PostgreSQL uses `transaction_s`
    and `entry_s`. `commit_wait_s` is the time that a transaction waits for the network, the disk and context switches.
    `inference_s` has the 1st to 99th percentiles of the time that an engine takes for one image.
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
