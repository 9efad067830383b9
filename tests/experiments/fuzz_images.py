"""Send mutated images to the decoder, in a process that may crash, and to a running gateway.

    python -m tests.experiments.fuzz_images [--images 10000] [--requests 10000] [--seed 7] [--only FORMAT:N] [--json]

Both numbers are for each format. Every image must give pixels or a documented error, within seconds, and over HTTP a
200 or a 4xx; neither process may grow by more than 48 MB after its first tenth. Exit status 1 when one does not.
`--only` writes one image that a line of the report names to standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import httpx

from tests.experiments.mutations import FORMATS, corpus, mutant
from tests.support.gateway import TIMEOUT_S, Gateway, running_gateway
from tests.support.linux.processes import resident_bytes

# An image that exploits a decoder takes minutes; any other takes a second, or a few on a slow and busy machine.
SLOWEST_S = 10.0
MOST_GROWTH_BYTES = 48_000_000
CONNECTIONS = 8
_START_S = 120.0

Files = Mapping[str, Sequence[bytes]]


@dataclass
class Report:
    """The images of one format: counts by outcome, the longest duration, and resident memory early and at the end."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    resident_megabytes: tuple[int, int] = (0, 0)
    faults: list[str] = field(default_factory=list)

    def record(self, outcome: str, seconds: float, image: str) -> None:
        self.outcomes[outcome] += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if seconds > SLOWEST_S:
            self.faults.append(f"{image} took {seconds:.1f} s")

    def close(self, early_bytes: int, late_bytes: int) -> None:
        early, late = self.resident_megabytes = round(early_bytes / 1e6), round(late_bytes / 1e6)
        if late_bytes - early_bytes > MOST_GROWTH_BYTES:
            self.faults.append(f"memory grew from {early} to {late} MB")


@dataclass(frozen=True)
class Decoding:
    """How the decoding of one image ended, how long it took, and the resident memory of the process afterwards."""

    outcome: str
    seconds: float
    resident_bytes: int


def decode_all(name: str, seed: int, numbers: Sequence[int], results: Connection) -> None:
    """In a process of its own: send each image's number before decoding it, and its Decoding afterwards."""
    from api.server.allocator import limit_memory_use
    from model.errors import ImageRejected
    from model.imaging.decode import decode_image, measure_image
    from model.imaging.input_spec import DEFAULT_INPUT

    limit_memory_use()
    files = corpus()
    for number in numbers:
        data = mutant(files, name, seed, number)
        results.send(number)
        started = time.perf_counter()
        try:
            measure_image(data, DEFAULT_INPUT)
            decoded = decode_image(data, DEFAULT_INPUT)
            outcome = "pixels" if decoded.pixels.shape == DEFAULT_INPUT.shape else "wrong shape"
        except ImageRejected as refused:
            outcome = refused.code
        except BaseException as error:
            outcome = f"escaped: {type(error).__name__}"
        results.send(Decoding(outcome, time.perf_counter() - started, resident_bytes(os.getpid())))
    results.send(None)


def fuzz_decoder(name: str, seed: int, images: int) -> Report:
    """Decode all images, continuing in a new process after each image that made the last one crash or hang."""
    report, early, latest, begin = Report(), 0, 0, 0
    while begin < images:
        here, there = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(
            target=decode_all, args=(name, seed, range(begin, images), there)
        )
        process.start()
        there.close()
        number = begin - 1
        try:
            while (number := _receive(here, _START_S)) is not None:
                decoding: Decoding = _receive(here, SLOWEST_S * 5)
                latest = decoding.resident_bytes
                report.record(decoding.outcome, decoding.seconds, f"{name}:{number}")
                if decoding.outcome.startswith(("escaped", "wrong")):
                    report.faults.append(f"{name}:{number} {decoding.outcome}")
                early = latest if number == images // 10 else early
            break
        except (EOFError, TimeoutError) as error:
            process.kill()
            process.join()
            ended = "hangs" if isinstance(error, TimeoutError) else f"crashes with {process.exitcode}"
            report.faults.append(f"{name}:{number} {ended}")
            report.outcomes[ended] += 1
            begin = (begin if number is None else number) + 1
    process.join()
    report.close(early, latest)
    return report


def _receive(pipe: Connection, seconds: float) -> Any:
    """The next object that the process sends. Raises TimeoutError, EOFError."""
    if not pipe.poll(seconds):
        raise TimeoutError
    return pipe.recv()


async def fuzz_gateway(gateway: Gateway, name: str, seed: int, requests: int) -> Report:
    """Send images as the body itself and as a form, on several connections; none of them has been decoded before."""
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
            report.record(outcome, time.perf_counter() - started, f"{name}:{number}")
            if not 200 <= response.status_code < 500:
                report.faults.append(f"{name}:{number} gives {outcome}")
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
        yield f"{name:13} slowest {report.slowest_s:5.2f} s  resident {early:>4} to {late:>4} MB  {outcomes}"
        yield from (f"  FAULT {fault}" for fault in report.faults)


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutated images against the decoder and a gateway.")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.only:
        name, number = options.only.split(":")
        sys.stdout.buffer.write(mutant(corpus(), name, options.seed, int(number)))
        return 0
    reports = {f"decoder {name}": fuzz_decoder(name, options.seed, options.images) for name in FORMATS}
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
