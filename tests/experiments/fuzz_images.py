"""Mutated images against the decoder, in a process that may die of them, and against a running gateway.

    python -m tests.experiments.fuzz_images [--images 10000] [--requests 10000] [--seed 7] [--only FORMAT:N] [--json]

Both numbers are for each format. Every image must give pixels or a refusal, within two seconds, and over HTTP a 200
or a 4xx; neither process may grow by more than 48 MB from its first tenth on. Exit status 1 when one does not.
`--only` writes one image to standard output: what a line of the report names.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

from tests.conftest import Gateway, make_gateway
from tests.experiments.mutations import FORMATS, corpus, mutant

SLOWEST_S = 2.0
MOST_GROWTH_KB = 48_000
CONNECTIONS = 8

Files = Mapping[str, Sequence[bytes]]


@dataclass
class Report:
    """What became of the images of one format: outcomes, the slowest in seconds, resident KB early and at the end."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    resident_kb: tuple[int, int] = (0, 0)
    faults: list[str] = field(default_factory=list)

    def note(self, outcome: str, seconds: float, image: str) -> None:
        self.outcomes[outcome] += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if seconds > SLOWEST_S:
            self.faults.append(f"{image} took {seconds:.1f} s")

    def close(self, early_kb: int, late_kb: int) -> None:
        self.resident_kb = early_kb, late_kb
        if late_kb - early_kb > MOST_GROWTH_KB:
            self.faults.append(f"memory grew from {early_kb} to {late_kb} KB")


def decode_all(name: str, seed: int, numbers: Sequence[int], told: Connection) -> None:
    """In a process of its own: say the number before each image, then how it ended and what is resident."""
    from api.server.allocator import limit_memory_use
    from model.errors import ImageRejected
    from model.imaging.decode import decode_image, measure_image
    from model.imaging.input_spec import DEFAULT_INPUT

    limit_memory_use()
    files = corpus()
    for number in numbers:
        data = mutant(files, name, seed, number)
        told.send(number)
        started = time.perf_counter()
        try:
            measure_image(data, DEFAULT_INPUT)
            decoded = decode_image(data, DEFAULT_INPUT)
            outcome = "pixels" if decoded.pixels.shape == DEFAULT_INPUT.shape else "wrong shape"
        except ImageRejected as refused:
            outcome = refused.code
        except BaseException as error:
            outcome = f"escaped: {type(error).__name__}"
        told.send((outcome, time.perf_counter() - started, _resident_kb(os.getpid())))
    told.send(None)


def fuzz_decoder(name: str, seed: int, images: int) -> Report:
    """Go on in a new process behind each image that the last one died of or hung at."""
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
            while (number := _told(here, 60)) is not None:
                outcome, seconds, latest = _told(here, SLOWEST_S * 5)
                report.note(outcome, seconds, f"{name}:{number}")
                if outcome.startswith(("escaped", "wrong")):
                    report.faults.append(f"{name}:{number} {outcome}")
                early = latest if number == images // 10 else early
            break
        except (EOFError, TimeoutError) as error:
            process.kill()
            process.join()
            ended = "hangs" if isinstance(error, TimeoutError) else f"dies with {process.exitcode}"
            report.faults.append(f"{name}:{number} {ended}")
            report.outcomes[ended] += 1
            begin = (begin if number is None else number) + 1
    process.join()
    report.close(early, latest)
    return report


def _told(pipe: Connection, seconds: float) -> object:
    """The next word of the process. Raises TimeoutError, EOFError."""
    if not pipe.poll(seconds):
        raise TimeoutError
    return pipe.recv()


async def fuzz_gateway(gateway: Gateway, name: str, seed: int, requests: int) -> Report:
    """As the body itself and as a form, on several connections; images that the decoder has not seen."""
    assert gateway.process is not None
    report, files, early, pid = Report(), corpus(), 0, gateway.process.pid
    numbers = iter(range(1_000_000, 1_000_000 + requests))
    headers = {"Authorization": f"Bearer {gateway.token()}"}

    async def send(client: httpx.AsyncClient) -> None:
        nonlocal early
        for number in numbers:
            data = mutant(files, name, seed, number)
            as_body = {"content": data, "headers": {"Content-Type": f"image/{name.lower()}"}}
            started = time.perf_counter()
            answer = await client.post("/v1/predictions", **(as_body if number % 2 else {"files": {"file": data}}))
            outcome = "200" if answer.is_success else f"{answer.status_code} {answer.json()['code']}"
            report.note(outcome, time.perf_counter() - started, f"{name}:{number}")
            if not 200 <= answer.status_code < 500:
                report.faults.append(f"{name}:{number} is answered {outcome}")
            early = early or (_resident_kb(pid) if number >= 1_000_000 + requests // 10 else 0)

    async with httpx.AsyncClient(base_url=gateway.base_url, headers=headers, timeout=30) as client:
        await asyncio.gather(*(send(client) for _ in range(CONNECTIONS)))
    report.close(early, _resident_kb(pid))
    return report


@contextmanager
def running() -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory() as folder:
        gateway = make_gateway(Path(folder), MODEL__URL="stub://", LIMITS__PREDICT="10000000/minute")
        gateway.start()
        try:
            yield gateway
        finally:
            gateway.stop()


def _resident_kb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def _rows(reports: Mapping[str, Report]) -> Iterator[str]:
    for name, report in reports.items():
        early, late = report.resident_kb
        told = ", ".join(f"{outcome} {count}" for outcome, count in report.outcomes.most_common())
        yield f"{name:13} slowest {report.slowest_s:5.2f} s  resident {early:>7} to {late:>7} KB  {told}"
        yield from (f"  FAULT {fault}" for fault in report.faults)


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutated images against the decoder and a gateway.")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.only:
        name, number = asked.only.split(":")
        sys.stdout.buffer.write(mutant(corpus(), name, asked.seed, int(number)))
        return 0
    reports = {f"decoder {name}": fuzz_decoder(name, asked.seed, asked.images) for name in FORMATS}
    if asked.requests:
        with running() as gateway:
            for name in FORMATS:
                reports[f"HTTP {name}"] = asyncio.run(fuzz_gateway(gateway, name, asked.seed, asked.requests))
    faults = [fault for report in reports.values() for fault in report.faults]
    if asked.json:
        print(json.dumps({name: vars(report) for name, report in reports.items()}))
    else:
        print(*_rows(reports), f"faults: {len(faults)}", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
