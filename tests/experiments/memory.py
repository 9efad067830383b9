"""Send more large images than fit to a gateway in a memory cgroup of 512 MiB, and check that it survives.

    python -m tests.experiments.memory [--seconds 120] [--connections 32] [--megabytes 512] [--json]

Half of the connections send small images, the rest images of 48 megapixels: JPEG, progressive JPEG and PNG. Exit
status 0 if no process was killed and the gateway served small images throughout; 77 if no memory cgroup can be created
(which requires root); 1 otherwise. The group lies below this process's own and is removed at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import httpx
from PIL import Image

from tests.support.gateway import TIMEOUT_S, Gateway, make_gateway
from tests.support.linux.control_groups import MemoryGroup, NoControlGroup, memory_group
from tests.support.linux.processes import peak_resident_bytes
from tests.support.paths import ATALAYA, FOREST

SMALL = "small JPEG"
# The longest gap between two small images served: three seconds, or on a slow machine three times what one large image
# takes there alone. Of the small images at least three quarters must be served.
MAX_SILENT_S, MAX_SILENT_TIMES_ALONE, MIN_SERVED = 3.0, 3.0, 0.75
NO_MEMORY_GROUP = 77

Picture = tuple[str, bytes]
"""Media type and file."""


@dataclass
class Tally:
    """Responses to the images of one kind: counts by status and code, durations in seconds and times of success."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    served_at: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of requests that were served."""
        return self.statuses["200"] / max(1, self.statuses.total())

    @property
    def median_ms(self) -> float:
        return round(sorted(self.seconds)[len(self.seconds) // 2] * 1000, 1) if self.seconds else 0.0

    def longest_silence(self, start: float, end: float) -> float:
        moments = [start, *self.served_at, end]
        return max(later - earlier for earlier, later in pairwise(moments))


@dataclass(frozen=True)
class KindResult:
    """The results for one kind of image."""

    statuses: dict[str, int]
    median_ms: float
    share: float


@dataclass(frozen=True)
class Results:
    """The results of one run."""

    kinds: dict[str, KindResult]
    small_silence_s: float
    most_silent_s: float
    limit_bytes: int
    group_peak_bytes: int
    resident_peak_bytes: int
    oom_kills: int
    alive: bool

    def failures(self) -> list[str]:
        share = self.kinds[SMALL].share
        found = {
            "the kernel killed processes because memory ran out": self.oom_kills != 0,
            "the gateway ended": not self.alive,
            f"no small image was served for {self.small_silence_s:.1f} s": self.small_silence_s > self.most_silent_s,
            f"only {share:.0%} of the small images were served": share < MIN_SERVED,
        }
        return [failure for failure, is_true in found.items() if is_true]

    def show(self) -> None:
        print(f"{'image':24}{'median ms':>10}  responses by status")
        for kind, result in self.kinds.items():
            counts = ", ".join(f"{count} x {status}" for status, count in sorted(result.statuses.items()))
            print(f"{kind:24}{result.median_ms:>10}  {counts}")
        for name in ("limit_bytes", "group_peak_bytes", "resident_peak_bytes"):
            print(f"{name.removesuffix('_bytes').replace('_', ' '):20}{getattr(self, name) / 2**20:8.0f} MiB")
        print(f"OOM kills {self.oom_kills}; longest time without a small image served {self.small_silence_s:.1f} s")


def make_pictures() -> dict[str, Picture]:
    """Make one picture of each kind, the small one first."""
    with Image.open(FOREST) as sample:
        # Doubled at the end: otherwise the PNG would be larger than the gateway accepts.
        large = sample.convert("RGB").resize((4000, 3000)).resize((8000, 6000), Image.Resampling.NEAREST)
    jpeg, progressive, png = (io.BytesIO() for _ in range(3))
    large.save(jpeg, "JPEG", quality=85)
    large.save(progressive, "JPEG", quality=85, progressive=True)
    large.save(png, "PNG", compress_level=1)
    return {
        SMALL: ("image/jpeg", FOREST.read_bytes()),
        "48 MP JPEG": ("image/jpeg", jpeg.getvalue()),
        "48 MP progressive JPEG": ("image/jpeg", progressive.getvalue()),
        "48 MP PNG": ("image/png", png.getvalue()),
    }


@contextmanager
def gateway_in(group: MemoryGroup) -> Iterator[Gateway]:
    """Run a gateway whose processes are members of the group."""
    with tempfile.TemporaryDirectory(prefix="atalaya-memory-") as folder:
        gateway = make_gateway(Path(folder), LIMITS__PREDICT="1000000/minute")
        gateway.command = ["sh", "-c", f"echo $$ > {group.members} && exec {ATALAYA} serve"]
        try:
            gateway.start()
            yield gateway
        finally:
            if gateway.is_running:
                gateway.stop()


def slowest_alone_s(gateway: Gateway, pictures: dict[str, Picture]) -> float:
    """Return how long the slowest of the pictures takes while the gateway is idle."""
    client, durations = gateway.client(), []
    for media_type, body in pictures.values():
        response = client.post("/v1/predictions", content=body, headers={"Content-Type": media_type})
        if response.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # it may not fit on this machine at all
            response.raise_for_status()
        durations.append(response.elapsed.total_seconds())
    return max(durations)


async def send_repeatedly(gateway: Gateway, picture: Picture, until: float, tally: Tally) -> None:
    """Send the same picture on one connection again and again, and wait as long as Retry-After says."""
    media_type, body = picture
    async with httpx.AsyncClient(
        base_url=gateway.base_url,
        auth=gateway.fresh_token(),
        headers={"Content-Type": media_type},
        timeout=TIMEOUT_S,
    ) as client:
        while (started := time.monotonic()) < until:
            try:
                response = await client.post("/v1/predictions", content=body)
            except httpx.TransportError as error:
                tally.statuses[type(error).__name__] += 1
                await asyncio.sleep(0.1)
                continue
            ended = time.monotonic()
            if response.is_success:
                tally.statuses["200"] += 1
                tally.seconds.append(ended - started)
                tally.served_at.append(ended)
            else:
                tally.statuses[f"{response.status_code} {response.json()['code']}"] += 1
                await asyncio.sleep(float(response.headers.get("Retry-After", 0)))


async def load(gateway: Gateway, pictures: dict[str, Picture], seconds: float, connections: int) -> dict[str, Tally]:
    tallies = defaultdict[str, Tally](Tally)
    small, *large = pictures
    kinds = [small if index % 2 else large[index // 2 % len(large)] for index in range(connections)]
    until = time.monotonic() + seconds
    await asyncio.gather(*(send_repeatedly(gateway, pictures[kind], until, tallies[kind]) for kind in kinds))
    return tallies


def run(seconds: float, connections: int, limit_bytes: int) -> Results:
    """Run the experiment once. Raises NoControlGroup."""
    pictures = make_pictures()
    with memory_group(limit_bytes) as group:
        with gateway_in(group) as gateway:
            alone_s = slowest_alone_s(gateway, pictures)
            started = time.monotonic()
            tallies = asyncio.run(load(gateway, pictures, seconds, connections))
            ended = time.monotonic()
            alive = gateway.is_running
            resident = peak_resident_bytes(gateway.pid) if alive else 0
        return Results(
            kinds={
                kind: KindResult(dict(tally.statuses), tally.median_ms, tally.share) for kind, tally in tallies.items()
            },
            small_silence_s=tallies[SMALL].longest_silence(started, min(ended, started + seconds)),
            most_silent_s=max(MAX_SILENT_S, MAX_SILENT_TIMES_ALONE * alone_s),
            limit_bytes=limit_bytes,
            group_peak_bytes=group.peak_bytes(),
            resident_peak_bytes=resident,
            oom_kills=group.oom_kills(),
            alive=alive,
        )


class Report(Protocol):
    """The results of an experiment."""

    def failures(self) -> list[str]:
        """Return descriptions of the criteria that were not met."""
        ...

    def show(self) -> None: ...


def run_from_command_line(
    description: str | None, run: Callable[[float, int, int], Report], *, seconds: float, connections: int
) -> int:
    """Run an experiment in a memory group with the options of the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--connections", type=int, default=connections)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        results = run(options.seconds, options.connections, options.megabytes << 20)
    except NoControlGroup as error:
        print(f"skipped: {error}", file=sys.stderr)
        return NO_MEMORY_GROUP
    if options.json:
        print(json.dumps(vars(results), default=vars))
    else:
        results.show()
    failures = results.failures()
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def main() -> int:
    return run_from_command_line(__doc__, run, seconds=120, connections=32)


if __name__ == "__main__":
    sys.exit(main())
