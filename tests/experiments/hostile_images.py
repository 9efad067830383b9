"""Send small images that are costly to decode, and ordinary ones, to a gateway in a memory cgroup of 512 MiB.

    python -m tests.experiments.hostile_images [--seconds 60] [--connections 16] [--megabytes 512] [--json]

Half of the connections send ordinary images, the others TIFFs whose strips share their bytes, TIFFs with a JPEG that
is taller than the image, and progressive JPEGs with arithmetic coding. Exit status 0 if no process was killed, at
least three quarters of the ordinary images were served, /livez responded within 50 ms (on a slow machine: within three
times what it takes under ordinary load) and SIGTERM ended the gateway within 10 s with status 0; 77 if no memory cgroup
can be created (which requires root); 1 otherwise.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from collections import defaultdict
from dataclasses import dataclass

import httpx

from tests.experiments.memory import Picture, Tally, gateway_in, run_from_command_line, send_repeatedly
from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.linux.control_groups import memory_group
from tests.support.paths import FOREST, ROOT

ORDINARY = "ordinary JPEG"
CASES = ROOT / "tests" / "model" / "imaging" / "fixtures"
MAX_LIVEZ_S, MAX_LIVEZ_TIMES_ORDINARY, MAX_SHUTDOWN_S, MIN_SERVED = 0.05, 3.0, 10.0, 0.75
WARM_UP_S = 3.0
LIVEZ_INTERVAL_S = 0.05


@dataclass(frozen=True)
class Results:
    """The results of one run."""

    statuses: dict[str, dict[str, int]]
    ordinary_share: float
    livez_ordinary_s: float
    livez_s: float
    shutdown_s: float
    exit_status: int
    group_peak_bytes: int
    oom_kills: int

    def failures(self) -> list[str]:
        most_livez_s = max(MAX_LIVEZ_S, MAX_LIVEZ_TIMES_ORDINARY * self.livez_ordinary_s)
        found = {
            "the kernel killed processes because memory ran out": self.oom_kills != 0,
            f"only {self.ordinary_share:.0%} of the ordinary images were served": self.ordinary_share < MIN_SERVED,
            f"/livez took {self.livez_s * 1000:.0f} ms": self.livez_s > most_livez_s,
            f"the shutdown took {self.shutdown_s:.1f} s": self.shutdown_s > MAX_SHUTDOWN_S,
            f"the gateway ended with status {self.exit_status}": self.exit_status != 0,
        }
        return [failure for failure, is_true in found.items() if is_true]

    def show(self) -> None:
        for kind, statuses in self.statuses.items():
            counts = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
            print(f"{kind:20} {counts}")
        print(
            f"/livez: {self.livez_s * 1000:.0f} ms at most, under ordinary load {self.livez_ordinary_s * 1000:.0f} ms"
        )
        print(f"group peak {self.group_peak_bytes / 2**20:.0f} MiB; OOM kills {self.oom_kills}")
        print(f"SIGTERM: exit status {self.exit_status} after {self.shutdown_s:.1f} s")


def make_shared_strips(strips: int) -> bytes:
    """Make a TIFF with one strip for each row, all of which point to the same packed bytes."""
    packed = struct.pack("bB", -127, 255) * 8  # PackBits: eight runs of 128 white pixels
    width, offset = 1024, 8
    first_array = offset + len(packed)
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, strips),
        (258, 3, 1, 8),
        (259, 3, 1, 32773),
        (262, 3, 1, 1),
        (273, 4, strips, first_array),
        (277, 3, 1, 1),
        (278, 4, 1, 1),
        (279, 4, strips, first_array + 4 * strips),
    ]
    directory = first_array + 8 * strips
    return (
        struct.pack("<2sHI", b"II", 42, directory)
        + packed
        + struct.pack(f"<{strips}I", *[offset] * strips)
        + struct.pack(f"<{strips}I", *[len(packed)] * strips)
        + struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        + bytes(4)
    )


def make_pictures() -> dict[str, Picture]:
    """Make one picture of each kind, the ordinary one first."""
    tiff, jpeg = "image/tiff", "image/jpeg"
    return {
        ORDINARY: (jpeg, FOREST.read_bytes()),
        "shared strips": (tiff, make_shared_strips(32_768)),
        "tall JPEG in TIFF": (tiff, (CASES / "jpeg_strip_taller_than_the_image.tif").read_bytes()),
        "arithmetic JPEG": (jpeg, (CASES / "arithmetic_progressive_50_scans.jpg").read_bytes()),
    }


async def measure_livez_s(gateway: Gateway, until: float) -> float:
    """Return the longest time that /livez takes until `until`."""
    longest_s = 0.0
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=TIMEOUT_S) as client:
        await client.get("/livez")  # connect
        while longest_s == 0 or time.monotonic() < until:
            began = time.monotonic()
            (await client.get("/livez")).raise_for_status()
            longest_s = max(longest_s, time.monotonic() - began)
            await asyncio.sleep(LIVEZ_INTERVAL_S)
    return longest_s


async def load(gateway: Gateway, kinds: list[str], seconds: float) -> tuple[dict[str, Tally], float]:
    """Send a picture of each of `kinds` on its own connection; return the responses and the longest /livez."""
    pictures, tallies = make_pictures(), defaultdict[str, Tally](Tally)
    until = time.monotonic() + seconds
    sending = (send_repeatedly(gateway, pictures[kind], until, tallies[kind]) for kind in kinds)
    _, livez_s = await asyncio.gather(asyncio.gather(*sending), measure_livez_s(gateway, until))
    return tallies, livez_s


def run(seconds: float, connections: int, limit_bytes: int) -> Results:
    """Run the experiment once. Raises NoControlGroup."""
    _, *hostile = make_pictures()
    kinds = [ORDINARY if index % 2 else hostile[index // 2 % len(hostile)] for index in range(connections)]
    with memory_group(limit_bytes) as group:
        with gateway_in(group) as gateway:
            _, livez_ordinary_s = asyncio.run(load(gateway, [ORDINARY] * connections, WARM_UP_S))
            tallies, livez_s = asyncio.run(load(gateway, kinds, seconds))
            began = time.monotonic()
            exit_status = gateway.stop()
            shutdown_s = time.monotonic() - began
        return Results(
            statuses={kind: dict(tally.statuses) for kind, tally in tallies.items()},
            ordinary_share=tallies[ORDINARY].share,
            livez_ordinary_s=livez_ordinary_s,
            livez_s=livez_s,
            shutdown_s=shutdown_s,
            exit_status=exit_status,
            group_peak_bytes=group.peak_bytes(),
            oom_kills=group.oom_kills(),
        )


def main() -> int:
    return run_from_command_line(__doc__, run, seconds=60, connections=16)


if __name__ == "__main__":
    sys.exit(main())
