"""Measure what a prediction costs a gateway, PostgreSQL, Redis and an engine, and how many each can serve.

    python -m bench.parts.capacity [--seconds 1.5] [--rounds 4] [--output bench/scale/measured.json]

A real gateway records in a real PostgreSQL, which flushes its log to the disk, and counts limits in a real Redis. Each
result is that of the fastest round: other work on the machine only makes rounds slower. `--output` writes the
input of the simulation.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psycopg
from numpy.typing import NDArray

from api.prediction.quotas import QuotaChargeRecorder, encode_charge
from api.services.recording import open_journal
from api.settings import Settings
from auth.quotas.meter import UsageMeter
from auth.quotas.tallies import QuotaCharge, format_month
from bench.gateways import measured_gateway
from bench.history import describe_machine, format_today
from bench.ledger import make_facts
from bench.load import build_request, drive
from bench.scale.costs import Costs, Observation, write_costs
from model.backends.base import Backend
from model.backends.open import open_warm
from model.imaging.decode import decode_image
from monitoring.chains.ids import MonotonicIds
from monitoring.chains.signing import new_private_key
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.batches import PendingEntry
from monitoring.ledger.entries import EntryDraft
from monitoring.ledger.journal import Journal
from storage.engine import open_engine
from tests.support import postgres, redis
from tests.support.gateway import Gateway
from tests.support.linux import processes
from tests.support.paths import FOREST, MODEL_URL

CONNECTIONS = (1, 4, 16)
BATCHES = 1, 32
"""Entries in a transaction. The costs of a transaction and of an entry are computed from the two sizes."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """The number of rounds, and the seconds that each takes."""

    count: int
    seconds: float


WARM_UP = Rounds(1, 1.0)


@dataclass(frozen=True, slots=True)
class Load:
    """The results of one load, with the processor time for each prediction in seconds."""

    observation: Observation
    gateway_s: float
    redis_s: float


@dataclass(frozen=True, slots=True)
class Transaction:
    """The median duration of transactions of one size, and the mean processor time of the client and of PostgreSQL."""

    elapsed_s: float
    client_s: float
    database_s: float


def measure_load(gateway: Gateway, counts: redis.Redis, connections: int, rounds: Rounds) -> Load:
    loads = [_measure_load_once(gateway, counts, connections, rounds.seconds) for _ in range(rounds.count)]
    return max(loads, key=lambda load: load.observation.rate)


def _measure_load_once(gateway: Gateway, counts: redis.Redis, connections: int, seconds: float) -> Load:
    request = build_request(gateway.token(), FOREST)
    before = _cpu_seconds([gateway.pid]), read_redis(counts, "used_cpu_user", "used_cpu_sys")
    caller_s = time.process_time()
    results = asyncio.run(drive(gateway.port, request, connections, seconds))
    caller_s = (time.process_time() - caller_s) / results.statuses[200]
    after = _cpu_seconds([gateway.pid]), read_redis(counts, "used_cpu_user", "used_cpu_sys")
    gateway_s, redis_s = ((new - old) / results.statuses[200] for new, old in zip(after, before, strict=True))
    return Load(Observation(connections, results.rate, results.percentile_ms(50), caller_s), gateway_s, redis_s)


def read_redis(counts: redis.Redis, *names: str) -> float:
    """Return the sum of the named numbers in the reply to INFO."""
    text = counts.ask(b"INFO everything").decode()
    return sum(float(value) for value in re.findall(rf"^(?:{'|'.join(names)}):([\d.]+)", text, re.MULTILINE))


def measure_transactions(journal: Journal, server: int, size: int, rounds: Rounds) -> Transaction:
    """Commit batches of `size` entries, each of another caller. `server` is the id of PostgreSQL's main process."""
    transactions = [_measure_transactions_once(journal, server, size, rounds.seconds) for _ in range(rounds.count)]
    return min(transactions, key=lambda transaction: transaction.elapsed_s)


def _measure_transactions_once(journal: Journal, server: int, size: int, seconds: float) -> Transaction:
    ids, elapsed, client, database = MonotonicIds(), [], time.thread_time(), _cpu_seconds(_tree(server))
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        journal.commit([_make_entry(ids, number) for number in range(size)])
        elapsed.append(time.perf_counter() - started)
    client, database = time.thread_time() - client, _cpu_seconds(_tree(server)) - database
    return Transaction(statistics.median(elapsed), client / len(elapsed), database / len(elapsed))


def _make_entry(ids: MonotonicIds, number: int) -> PendingEntry:
    draft = EntryDraft(ids.new(), format_timestamp(datetime.now(UTC)), make_facts(number))
    charge = QuotaCharge((f"client:{number}",), format_month(time.time()), 1, 65536)
    return PendingEntry(draft, encode_charge(charge))


def measure_bytes(url: str, journal: Journal, size: int, transactions: int) -> tuple[float, float]:
    """Return the bytes that an entry takes in the ledger's tables with their indexes, and in the write-ahead log."""
    ids = MonotonicIds()
    with psycopg.connect(url, autocommit=True) as connection:
        before = _read_sizes(connection)
        for _ in range(transactions):
            journal.commit([_make_entry(ids, number) for number in range(size)])
        after = _read_sizes(connection)
    table, log = ((new - old) / (size * transactions) for new, old in zip(after, before, strict=True))
    return table, log


def _read_sizes(connection: psycopg.Connection[tuple[float, ...]]) -> tuple[float, ...]:
    row = connection.execute(
        "SELECT (pg_total_relation_size('ledger_entries') + pg_total_relation_size('ledger_payloads'))::float8,"
        " (pg_current_wal_lsn() - '0/0')::float8"
    ).fetchone()
    if row is None:
        raise RuntimeError("PostgreSQL returned no row")
    return row


def count_connections(url: str) -> int:
    """Return the number of connections to a database, without the one that this function opens."""
    with psycopg.connect(url) as connection:
        statement = "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"
        (count,) = connection.execute(statement).fetchone() or (0,)
        return int(count)


def measure_inferences(rounds: Rounds) -> Sequence[float]:
    """Return the 1st to 99th percentiles of the seconds that one thread takes for one image."""
    backend = open_warm(MODEL_URL, 1)
    pixels = decode_image(FOREST.read_bytes(), backend.info.input_spec).pixels[np.newaxis]
    found = [_measure_inferences_once(backend, pixels, rounds.seconds) for _ in range(rounds.count)]
    backend.close()
    return [round(percentile, 5) for percentile in min(found, key=statistics.mean)]


def _measure_inferences_once(backend: Backend, pixels: NDArray[np.uint8], seconds: float) -> Sequence[float]:
    durations, until = [], time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        backend.predict(pixels)
        durations.append(time.perf_counter() - started)
    return statistics.quantiles(durations, n=100)


def measure_redis_bytes(counts: redis.Redis) -> float:
    """Return the bytes that the rate-limit window of the only caller takes."""
    (key, *_) = re.findall(rb"(atalaya:\S+)", counts.ask(b"KEYS atalaya:*predict*")) or [b""]
    return float(re.sub(rb"\D", b"", counts.ask(b"MEMORY USAGE " + key)) or 0)


def measure(folder: Path, rounds: Rounds) -> Costs:
    """Start all servers, measure them, and print the costs. Raises LookupError without PostgreSQL or Redis."""
    with postgres.running(durable=True) as database, redis.running(folder) as counts:
        with psycopg.connect(f"{database.url}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE atalaya")
            connection.execute("CREATE DATABASE ledger")
            shared = {"DATABASE_URL": f"{database.url}/atalaya", "REDIS_URL": counts.url}
        with measured_gateway("stub://", **shared) as gateway:
            measure_load(gateway, counts, 4, WARM_UP)
            loads = [measure_load(gateway, counts, connections, rounds) for connections in CONNECTIONS]
            redis_bytes, connections = measure_redis_bytes(counts), count_connections(shared["DATABASE_URL"])
        with measured_gateway(**{**shared, "DATABASE_URL": f"{database.url}/ledger"}) as gateway:
            measure_load(gateway, counts, 4, WARM_UP)
            local = measure_load(gateway, counts, 16, rounds)
        single, batch, sizes = _measure_ledger(f"{database.url}/ledger", folder, rounds)
    entry_s = (batch.database_s - single.database_s) / (BATCHES[1] - BATCHES[0])
    writer_entry_s = (batch.client_s - single.client_s) / (BATCHES[1] - BATCHES[0])
    costs = Costs(
        machine=describe_machine(),
        date=format_today(),
        request_s=loads[0].gateway_s - single.client_s,
        writer_transaction_s=single.client_s - writer_entry_s,
        writer_entry_s=writer_entry_s,
        inference_s=measure_inferences(rounds),
        redis_s=loads[-1].redis_s,
        redis_bytes=redis_bytes,
        transaction_s=single.database_s - entry_s,
        entry_s=entry_s,
        commit_wait_s=max(0.0, single.elapsed_s - single.client_s - single.database_s),
        connections=connections,
        entry_bytes=sizes[0],
        wal_bytes=sizes[1],
        observations=[load.observation for load in loads],
    )
    print(*format_costs(costs, loads[-1], local), sep="\n")
    return costs


def _measure_ledger(url: str, folder: Path, rounds: Rounds) -> tuple[Transaction, Transaction, tuple[float, float]]:
    settings = Settings(
        database_url=url, ledger={"signing_key": new_private_key(), "spool_folder": str(folder / "spool")}
    )
    engine = open_engine(url)
    journal = open_journal(settings, QuotaChargeRecorder(UsageMeter(engine)))
    journal.open()
    with psycopg.connect(url) as connection:
        server = processes.parent(connection.info.backend_pid)
        single, batch = (measure_transactions(journal, server, size, rounds) for size in BATCHES)
    sizes = measure_bytes(url, journal, 4, 500)
    journal.close()
    asyncio.run(engine.dispose())
    return single, batch, sizes


def format_costs(costs: Costs, remote: Load, local: Load) -> list[str]:
    single, full = (costs.transaction_s + costs.entry_s * size for size in BATCHES)
    observed = (
        f"  {each.connections:>2} connections{each.rate:>21.0f}/s{each.median_ms:>12.1f} ms"
        for each in costs.observations
    )
    inference_s = statistics.mean(costs.inference_s)
    return [
        f"{costs.machine}, {costs.date}",
        f"{'processor time':<28}{'each':>10}{'one core carries':>20}",
        f"{'  gateway, remote engine':<28}{remote.gateway_s * 1000:>7.2f} ms{1 / remote.gateway_s:>18.0f}/s",
        f"{'  gateway, local model':<28}{local.gateway_s * 1000:>7.2f} ms{1 / local.gateway_s:>18.0f}/s",
        f"{'  engine, one image':<28}{inference_s * 1000:>7.2f} ms{1 / inference_s:>18.0f}/s",
        f"{'  Redis, one limit':<28}{costs.redis_s * 1000:>7.3f} ms{1 / costs.redis_s:>18.0f}/s",
        f"{'  PostgreSQL, entries alone':<28}{single * 1000:>7.2f} ms{1 / single:>18.0f}/s",
        f"{'  PostgreSQL, 32 together':<28}{full / 32 * 1000:>7.2f} ms{32 / full:>18.0f}/s",
        f"a transaction waits {costs.commit_wait_s * 1000:.2f} ms for the disk and for other processes",
        f"an entry takes {costs.entry_bytes:.0f} bytes in PostgreSQL, and {costs.wal_bytes:.0f} in its log",
        f"a gateway has {costs.connections} connections to PostgreSQL",
        f"a caller takes {costs.redis_bytes:.0f} bytes in Redis",
        "one gateway without inference",
        *observed,
    ]


def _tree(pid: int) -> Sequence[int]:
    return [pid, *processes.descendants(pid)]


def _cpu_seconds(pids: Sequence[int]) -> float:
    return sum(map(processes.cpu_seconds, pids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atalaya-capacity-") as folder:
        costs = measure(Path(folder), Rounds(options.rounds, options.seconds))
    if options.output:
        write_costs(costs, options.output)


if __name__ == "__main__":
    main()
