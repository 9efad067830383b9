"""How long a large ledger takes to be verified, and how much memory: as many entries, and ten times as many.

    python -m bench.ledger [--entries 1000000]

Exit status 0 when the whole is verified within a minute, and the memory does not grow with the entries; 1 when not.
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
from monitoring.ledger.store import LedgerStore
from storage.engine import open_blocking_engine, open_engine
from storage.migrations import migrate
from storage.transactions import WRITING
from tests.support.paths import ATALAYA

AT_ONCE, CHECKPOINT_EVERY, WRITERS = 2000, 50, 4
AIM_S, MOST_GROWTH = 60.0, 1.25
_LABELS = [f"land use {number}" for number in range(21)]


def _facts(number: int) -> dict[str, object]:
    """A prediction like those of the gateway, in size and shape."""
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
        "runtime": {"numpy": "2.4.6", "onnxruntime": "1.27.0", "pillow": "12.3.0", "processor": "of some kind"},
        "image": {"sha256": f"{number:064x}", "format": "JPEG", "width": 256, "height": 256, "bytes": 39458},
        "output": {"index": 20, "label": _LABELS[-1], "confidence": 0.04, "probabilities": probabilities},
        "timing_us": {"queue": 178, "decode": 1260, "infer": 19465},
    }


def fill(store: LedgerStore, chain: Chain, ids: MonotonicIds, entries: int) -> None:
    """Append so many entries to a chain, in transactions of AT_ONCE, with checkpoints between them."""
    for begun in range(0, entries, AT_ONCE):
        now = format_timestamp(datetime.now(UTC))
        numbers = range(begun, min(begun + AT_ONCE, entries))
        links = chain.link([EntryDraft(ids.new(), now, _facts(number)) for number in numbers])
        with store.transaction() as connection:
            store.append(connection, links, chain)
        chain.advance(links)
        if begun // AT_ONCE % CHECKPOINT_EVERY == 0:
            store.write_checkpoint()


def verified(url: str, folder: str, key: str) -> tuple[float, float, str]:
    """Seconds and peak memory in MB of `atalaya ledger verify`, and what it says."""
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url, "AUTH__SIGNING_KEY": generate_signing_key("ES256")}
    command = [str(ATALAYA), "ledger", "verify", "--public-key", key]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None  # noqa: S101  (it was asked for)
    said = process.stdout.read().strip()
    process.stdout.close()
    _, process.returncode, used = os.wait4(process.pid, 0)
    if process.returncode:
        raise SystemExit(f"error: {said}")
    return time.perf_counter() - began, used.ru_maxrss / 1000, said


def measure(folder: str, entries: int) -> bool:
    """Print a line a size; returns whether the aims are reached."""
    url, signer = f"sqlite:///{folder}/ledger.db", Signer(new_private_key())
    asyncio.run(_prepare(url))
    engine = open_blocking_engine(url).execution_options(**WRITING)
    store, ids, seen = LedgerStore(engine, signer), MonotonicIds(), []
    for size in (entries // 10, entries - entries // 10):
        for _ in range(WRITERS):
            chain = Chain(ids.new())
            store.open_chain(chain.writer)
            fill(store, chain, ids, size // WRITERS)
        store.write_checkpoint()
        seconds, megabytes, said = verified(url, folder, signer.public_key)
        seen.append((seconds, megabytes))
        print(f"{said.partition(',')[0]:<40}{seconds:>7.1f} s{megabytes:>8.0f} MB at the most", flush=True)
    store.close()
    (_, before), (seconds, after) = seen
    return seconds <= AIM_S and after <= before * MOST_GROWTH


async def _prepare(url: str) -> None:
    engine = open_engine(url)
    await migrate(engine, auth.MIGRATIONS, monitoring.MIGRATIONS)
    await engine.dispose()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000, help="at least 80,000")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="atalaya-ledger-") as folder:
        good = measure(str(Path(folder)), options.entries)
    print(f"verifying the ledger: {'within' if good else 'MISSED'} {AIM_S:.0f} s and flat memory")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
