"""Measure the time and memory to verify a large ledger, with a tenth of the entries and with all of them.

    python -m bench.ledger [--entries 1000000]

Exits with 0 if all entries are verified within a minute and memory does not grow with their number, otherwise with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import structlog

import auth
import monitoring
from auth.tokens.jws import generate_signing_key
from monitoring.chains.ids import MonotonicIds
from monitoring.chains.signing import Signer, new_private_key
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import EntryDraft
from monitoring.ledger.writing.store import LedgerStore
from storage.engine import open_blocking_engine, open_engine
from storage.migrations import migrate
from storage.transactions import WRITING
from tests.support.paths import ATALAYA

ENTRIES_PER_TRANSACTION, TRANSACTIONS_PER_CHECKPOINT, WRITERS = 2000, 50, 4
TARGET_S, MAX_GROWTH = 60.0, 1.25
_LABELS = [f"land use {number}" for number in range(21)]


def make_facts(number: int) -> dict[str, object]:
    """Return the facts of a prediction, with the size and shape of the gateway's own."""
    probabilities = {label: (index + number % 97) / 2500 for index, label in enumerate(_LABELS)}
    return {
        "v": 1,
        "request_id": f"{number:032x}",
        "route": "/v1/predictions",
        "principal": f"user {number % 50}",
        "key": None,
        "status": 200,
        "code": None,
        "count": 1,
        "model": {"name": "efficientnetb0", "version": "1.0", "digest": f"{7:064x}", "backend": "onnx"},
        "preprocessing": "2",
        "runtime": {"numpy": "2.4.6", "onnxruntime": "1.27.0", "pillow": "12.3.0", "processor": "some processor"},
        "image": {"sha256": f"{number:064x}", "format": "JPEG", "width": 256, "height": 256, "bytes": 39458},
        "output": {"index": 20, "label": _LABELS[-1], "confidence": 0.04, "probabilities": probabilities},
        "timing_us": {"queue": 178, "decode": 1260, "infer": 19465},
    }


def append_entries(store: LedgerStore, chain: Chain, ids: MonotonicIds, entries: int) -> None:
    """Append that many entries to a chain, in transactions of 2000 entries, with checkpoints between them."""
    for first in range(0, entries, ENTRIES_PER_TRANSACTION):
        now = format_timestamp(datetime.now(UTC))
        numbers = range(first, min(first + ENTRIES_PER_TRANSACTION, entries))
        links = chain.link([EntryDraft(ids.new(), now, make_facts(number)) for number in numbers])
        with store.batch_transaction() as connection:
            store.append(connection, links, chain)
        chain.advance(links)
        if first // ENTRIES_PER_TRANSACTION % TRANSACTIONS_PER_CHECKPOINT == 0:
            store.write_checkpoint()


def verify(url: str, folder: str, key: str) -> tuple[float, float, str]:
    """Run `atalaya ledger verify`; return its duration in seconds, its peak memory in MB and its output.

    Raises SystemExit if it fails.
    """
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url, "AUTH__SIGNING_KEY": generate_signing_key("ES256")}
    command = [str(ATALAYA), "ledger", "verify", "--public-key", key]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None  # noqa: S101  (stdout is a pipe)
    output = process.stdout.read().strip()
    process.stdout.close()
    _, process.returncode, used = os.wait4(process.pid, 0)
    if process.returncode:
        raise SystemExit(f"error: {output}")
    return time.perf_counter() - started, used.ru_maxrss / 1000, output


def measure(folder: str, entries: int) -> bool:
    """Verify a ledger of each size, and print a line for each; return whether the targets are met."""
    url, signer = f"sqlite:///{folder}/ledger.db", Signer(new_private_key())
    asyncio.run(_create_tables(url))
    engine = open_blocking_engine(url).execution_options(**WRITING)
    store, ids, runs = LedgerStore(engine, signer), MonotonicIds(), []
    for size in (entries // 10, entries - entries // 10):
        for _ in range(WRITERS):
            chain = Chain(ids.new())
            store.open_chain(chain.writer)
            append_entries(store, chain, ids, size // WRITERS)
        store.write_checkpoint()
        seconds, megabytes, output = verify(url, folder, signer.public_key)
        runs.append((seconds, megabytes))
        print(f"{output.partition(',')[0]:<40}{seconds:>7.1f} s{megabytes:>8.0f} MB peak", flush=True)
    store.close()
    (_, memory_of_tenth), (seconds, memory) = runs
    return seconds <= TARGET_S and memory <= memory_of_tenth * MAX_GROWTH


async def _create_tables(url: str) -> None:
    engine = open_engine(url)
    await migrate(engine, auth.MIGRATIONS, monitoring.MIGRATIONS)
    await engine.dispose()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000, help="at least 80,000")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="atalaya-ledger-") as folder:
        met = measure(str(Path(folder)), options.entries)
    print(f"target of {TARGET_S:.0f} s and constant memory: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
