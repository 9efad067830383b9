"""Send mutated and structured images to the decoder, in a process that may crash, and mutated ones to a gateway.

    python -m tests.experiments.fuzz_images [--images 10000] [--structured 2000] [--requests 10000] [--seed 7]
        [--only KIND:FORMAT:N] [--json]

The numbers are for each format. Every image must give pixels or a documented error, with at most 2 s of processor time,
3 s for 50 megapixels, and 1.2 times the memory that a gateway reserves for it; over HTTP a 200 or a 4xx. No process may
grow by more than 48 MB after its first tenth. Exit status 0 if all of this holds; 1 otherwise. `--only` writes an image
that a line of the report names to standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import httpx

from tests.experiments.decoding import Decoding, MakeImage, decode_all
from tests.experiments.structured.images import make_structured
from tests.experiments.structured.mutations import FORMATS, corpus, mutant
from tests.support.gateway import TIMEOUT_S, Gateway, running_gateway

# An image that exploits a decoder takes minutes; any other takes a second, or a few on a slow and busy machine.
MAX_SECONDS = 10.0
# Honest images of 50 megapixels take up to 2.2 s.
MAX_CPU_S, MAX_CPU_S_PER_PIXEL, MAX_MEMORY_SHARE = 2.0, 60e-9, 1.2
MAX_GROWTH_BYTES = 48_000_000
CONNECTIONS = 8
_START_S = 120.0


@dataclass
class Report:
    """The images of one format: counts by outcome, the longest duration, and resident memory early and at the end."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    largest_memory_share: float = 0.0
    resident_megabytes: tuple[int, int] = (0, 0)
    faults: list[str] = field(default_factory=list)

    def record(self, outcome: str, seconds: float, image: str) -> None:
        self.outcomes[outcome] += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if seconds > MAX_SECONDS:
            self.faults.append(f"{image} took {seconds:.1f} s")

    def record_decoding(self, decoding: Decoding, image: str) -> None:
        self.outcomes[decoding.outcome] += 1
        self.slowest_s = max(self.slowest_s, decoding.seconds)
        self.largest_memory_share = max(self.largest_memory_share, decoding.memory_share)
        found = {
            f"took {decoding.seconds:.1f} s of processor time": decoding.seconds
            > max(MAX_CPU_S, MAX_CPU_S_PER_PIXEL * decoding.pixels),
            f"took {decoding.memory_share:.2f} of its reserved memory": decoding.memory_share > MAX_MEMORY_SHARE,
            decoding.outcome: decoding.outcome.startswith(("escaped", "wrong")),
        }
        self.faults += [f"{image} {fault}" for fault, is_true in found.items() if is_true]

    def close(self, early_bytes: int, late_bytes: int) -> None:
        early, late = self.resident_megabytes = round(early_bytes / 1e6), round(late_bytes / 1e6)
        if late_bytes - early_bytes > MAX_GROWTH_BYTES:
            self.faults.append(f"memory grew from {early} to {late} MB")


def fuzz_decoder(image: str, make: MakeImage, images: int) -> Report:
    """Decode all images; after one that makes the process crash or hang, continue in a new process."""
    report, early, latest, begin = Report(), 0, 0, 0
    if images == 0:
        return report
    warm_up = [data for files in corpus().values() for data in files]
    while begin < images:
        here, there = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(
            target=decode_all, args=(make, range(begin, images), warm_up, there)
        )
        process.start()
        there.close()
        number = begin - 1
        try:
            while (number := _receive(here, _START_S)) is not None:
                decoding: Decoding = _receive(here, MAX_SECONDS * 5)
                latest = decoding.resident_bytes
                report.record_decoding(decoding, f"{image}:{number}")
                early = latest if number == images // 10 else early
            break
        except (EOFError, TimeoutError) as error:
            process.kill()
            process.join()
            ended = "hangs" if isinstance(error, TimeoutError) else f"crashes with {process.exitcode}"
            report.faults.append(f"{image}:{number} {ended}")
            report.outcomes[ended] += 1
            begin = (begin if number is None else number) + 1
    process.join()
    report.close(early, latest)
    return report


def _receive(pipe: Connection, seconds: float) -> Any:
    """Return the next object that the process sends. Raises TimeoutError, EOFError."""
    if not pipe.poll(seconds):
        raise TimeoutError
    return pipe.recv()


async def fuzz_gateway(gateway: Gateway, name: str, seed: int, requests: int) -> Report:
    """Send images alternately as the body and in a form, on several connections; none was decoded before."""
    report, files, early = Report(), corpus(), 0
    numbers = iter(range(1_000_000, 1_000_000 + requests))

    async def send(client: httpx.AsyncClient) -> None:
        nonlocal early
        for number in numbers:
            data = mutant(files, name, seed, number)
            as_body = {"content": data, "headers": {"Content-Type": f"image/{name.lower()}"}}
            started = time.perf_counter()
            response = await client.post("/v1/predictions", **(as_body if number % 2 else {"files": {"file": data}}))
            outcome = "200" if response.is_success else f"{response.status_code} {response.json()['code']}"
            report.record(outcome, time.perf_counter() - started, f"mutated:{name}:{number}")
            if not 200 <= response.status_code < 500:
                report.faults.append(f"mutated:{name}:{number} gives {outcome}")
            early = early or (gateway.resident_bytes() if number >= 1_000_000 + requests // 10 else 0)

    token = gateway.fresh_token()
    async with httpx.AsyncClient(base_url=gateway.base_url, auth=token, timeout=TIMEOUT_S) as client:
        await asyncio.gather(*(send(client) for _ in range(CONNECTIONS)))
    report.close(early, gateway.resident_bytes())
    return report


def _rows(reports: Mapping[str, Report]) -> Iterator[str]:
    for name, report in reports.items():
        early, late = report.resident_megabytes
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in report.outcomes.most_common())
        share = f"  memory {report.largest_memory_share:4.2f}" if report.largest_memory_share else ""
        yield f"{name:15} slowest {report.slowest_s:5.2f} s{share}  resident {early:>4} to {late:>4} MB  {outcomes}"
        yield from (f"  FAULT {fault}" for fault in report.faults)


def _get_maker(kind: str, name: str, seed: int) -> MakeImage:
    if kind == "structured":
        return partial(make_structured, name, seed)
    return partial(mutant, corpus(), name, seed)


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutated images against the decoder and a gateway.")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--structured", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.only:
        kind, name, number = options.only.split(":")
        sys.stdout.buffer.write(_get_maker(kind, name, options.seed)(int(number)))
        return 0
    reports = {
        f"{kind} {name}": fuzz_decoder(f"{kind}:{name}", _get_maker(kind, name, options.seed), images)
        for kind, images in (("mutated", options.images), ("structured", options.structured))
        for name in FORMATS
    }
    if options.requests:
        with running_gateway(MODEL__URL="stub://") as gateway:
            for name in FORMATS:
                reports[f"HTTP {name}"] = asyncio.run(fuzz_gateway(gateway, name, options.seed, options.requests))
    faults = [fault for report in reports.values() for fault in report.faults]
    if options.json:
        print(json.dumps({name: vars(report) for name, report in reports.items()}))
    else:
        print(*_rows(reports), f"faults: {len(faults)}", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
