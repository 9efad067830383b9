"""A real gateway in a real memory cgroup of 512 MiB, under images that do not all fit.

    python tests/experiments/memory.py [--seconds 120] [--connections 32] [--megabytes 512] [--json]

Half of the connections send small images, the rest images of 48 megapixels: JPEG, progressive JPEG and PNG. Exit
status 0 when nothing was killed, nothing restarted and the small ones were answered throughout, 1 when not, and 77
where no memory cgroup can be made (it takes root). The group lies under this process's own and is removed at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import httpx
from PIL import Image

from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key

ROOT = Path(__file__).parents[2]
ATALAYA = Path(sys.executable).with_name("atalaya")
SAMPLE = ROOT / "samples" / "yellowstone_forest.jpg"
PASSWORD = "correct horse battery"
PORT = 8790
# The longest that small images may go unanswered, in seconds; the share of them that must be answered.
MOST_SILENT_S, LEAST_ANSWERED = 3.0, 0.75
CANNOT = 77


class NoMemoryGroup(Exception):
    """This machine or this account has no memory cgroups to give."""


class MemoryGroup:
    """A memory cgroup (v1 or v2) below the one that this process is in. Raises NoMemoryGroup."""

    def __init__(self, limit: int) -> None:
        entries = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        groups = {controllers: group.lstrip("/") for _, controllers, group in entries}
        self._v1 = "memory" in groups
        root = Path("/sys/fs/cgroup/memory" if self._v1 else "/sys/fs/cgroup")
        self.path = root / groups.get("memory", groups.get("", "")) / f"atalaya-{os.getpid()}"
        try:
            self.path.mkdir()
        except OSError as error:
            raise NoMemoryGroup(f"no memory cgroup can be made: {error.strerror}") from error
        try:
            self._write("memory.limit_in_bytes" if self._v1 else "memory.max", limit)
        except OSError as error:
            self.remove()
            raise NoMemoryGroup(f"the memory cgroup takes no limit: {error.strerror}") from error

    @property
    def members(self) -> Path:
        return self.path / "cgroup.procs"

    def peak_bytes(self) -> int:
        return int((self.path / ("memory.max_usage_in_bytes" if self._v1 else "memory.peak")).read_text())

    def kills(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        lines = (self.path / ("memory.oom_control" if self._v1 else "memory.events")).read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def remove(self) -> None:
        """Once its last process has ended."""
        deadline = time.monotonic() + 5
        while True:
            try:
                return self.path.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise

    def _write(self, name: str, value: int) -> None:
        (self.path / name).write_text(str(value))


@dataclass
class Tally:
    """What happened to the images of one kind: answers by status and code, their times in seconds."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return self.statuses["200"]

    @property
    def share(self) -> float:
        return self.answered / max(1, self.statuses.total())

    def longest_silence(self, start: float, end: float) -> float:
        moments = [start, *self.answered_at, end]
        return max(later - earlier for earlier, later in pairwise(moments))


def pictures() -> dict[str, tuple[str, bytes]]:
    """Each kind of image with its media type."""
    with Image.open(SAMPLE) as sample:
        # Doubled at the end, or the PNG would have more bytes than are accepted.
        large = sample.convert("RGB").resize((4000, 3000)).resize((8000, 6000), Image.Resampling.NEAREST)
    jpeg, progressive, png = (io.BytesIO() for _ in range(3))
    large.save(jpeg, "JPEG", quality=85)
    large.save(progressive, "JPEG", quality=85, progressive=True)
    large.save(png, "PNG", compress_level=1)
    return {
        "small JPEG": ("image/jpeg", SAMPLE.read_bytes()),
        "48 MP JPEG": ("image/jpeg", jpeg.getvalue()),
        "48 MP progressive JPEG": ("image/jpeg", progressive.getvalue()),
        "48 MP PNG": ("image/png", png.getvalue()),
    }


@contextmanager
def gateway(folder: Path, group: MemoryGroup) -> Iterator[subprocess.Popen[bytes]]:
    """`atalaya serve` inside of the group, with the user `ana`."""
    environment = {
        "PATH": os.environ["PATH"],
        "PORT": str(PORT),
        "DATABASE_URL": f"sqlite:///{folder}/gateway.db",
        "AUTH__SIGNING_KEY": generate_signing_key("ES256"),
        "LEDGER__SIGNING_KEY": new_private_key(),
        "LEDGER__SPOOL_FOLDER": str(folder / "spool"),
        "MODEL__URL": f"onnx://{ROOT}/artifacts/efficientnetb0-v1.0",
        "LIMITS__PREDICT": "1000000/minute",
    }
    adding = [ATALAYA, "users", "add", "ana", "--role", "client", "--password-stdin"]
    subprocess.run(adding, input=PASSWORD.encode(), check=True, cwd=folder, env=environment, capture_output=True)
    serving = f"echo $$ > {group.members} && exec {ATALAYA} serve"
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(["sh", "-c", serving], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        wait_until_ready(process)
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{PORT}/readyz").is_success:
                return
        time.sleep(0.05)
    raise SystemExit("error: the gateway did not become ready")


async def send(media_type: str, body: bytes, token: str, until: float, tally: Tally) -> None:
    """One connection that sends the same image again and again, and waits when it is told to."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": media_type}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", headers=headers, timeout=30) as client:
        while (started := time.monotonic()) < until:
            try:
                answer = await client.post("/v1/predictions", content=body)
            except httpx.TransportError as error:
                tally.statuses[type(error).__name__] += 1
                await asyncio.sleep(0.1)
                continue
            ended = time.monotonic()
            if answer.is_success:
                tally.statuses["200"] += 1
                tally.seconds.append(ended - started)
                tally.answered_at.append(ended)
            else:
                tally.statuses[f"{answer.status_code} {answer.json()['code']}"] += 1
                await asyncio.sleep(float(answer.headers.get("Retry-After", 0)))


async def load(images: dict[str, tuple[str, bytes]], token: str, seconds: float, connections: int) -> dict[str, Tally]:
    tallies = defaultdict[str, Tally](Tally)
    small, *large = images
    kinds = [small if index % 2 else large[index // 2 % len(large)] for index in range(connections)]
    until = time.monotonic() + seconds
    await asyncio.gather(*(send(*images[kind], token, until, tallies[kind]) for kind in kinds))
    return tallies


def run(seconds: float, connections: int, limit: int) -> dict[str, object]:
    """The figures of one run. Raises NoMemoryGroup."""
    images, group, folder = pictures(), MemoryGroup(limit), Path(tempfile.mkdtemp(prefix="atalaya-memory-"))
    try:
        with gateway(folder, group) as process:
            form = {"grant_type": "password", "username": "ana", "password": PASSWORD}
            token = httpx.post(f"http://127.0.0.1:{PORT}/auth/token", data=form).json()["access_token"]
            started = time.monotonic()
            tallies = asyncio.run(load(images, token, seconds, connections))
            ended = time.monotonic()
            alive = process.poll() is None
            resident = peak_resident_bytes(process.pid) if alive else 0
        return {
            "kinds": {
                kind: {"statuses": dict(tally.statuses), "median_ms": median_ms(tally.seconds), "share": tally.share}
                for kind, tally in tallies.items()
            },
            "small_silence_s": tallies["small JPEG"].longest_silence(started, min(ended, started + seconds)),
            "small_share": tallies["small JPEG"].share,
            "limit_bytes": limit,
            "group_peak_bytes": group.peak_bytes(),
            "resident_peak_bytes": resident,
            "oom_kills": group.kills(),
            "alive": alive,
        }
    finally:
        group.remove()
        shutil.rmtree(folder)


def peak_resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def median_ms(seconds: list[float]) -> float:
    return round(sorted(seconds)[len(seconds) // 2] * 1000, 1) if seconds else 0.0


def failures(results: dict[str, object]) -> list[str]:
    silence, share = float(str(results["small_silence_s"])), float(str(results["small_share"]))
    found = {
        "processes were killed for want of memory": results["oom_kills"] != 0,
        "the gateway ended": not results["alive"],
        f"small images went unanswered for {silence:.1f} s": silence > MOST_SILENT_S,
        f"only {share:.0%} of the small images were answered": share < LEAST_ANSWERED,
    }
    return [what for what, is_so in found.items() if is_so]


def show(results: dict[str, object]) -> None:
    print(f"{'image':24}{'median ms':>10}  answers by status")
    for kind, tally in results["kinds"].items():  # type: ignore[attr-defined]
        counts = ", ".join(f"{count} x {status}" for status, count in sorted(tally["statuses"].items()))
        print(f"{kind:24}{tally['median_ms']:>10}  {counts}")
    for name in ("limit_bytes", "group_peak_bytes", "resident_peak_bytes"):
        print(f"{name.removesuffix('_bytes').replace('_', ' '):20}{int(str(results[name])) / 2**20:8.0f} MiB")
    print(f"OOM kills {results['oom_kills']}; longest without a small answer {results['small_silence_s']:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        results = run(options.seconds, options.connections, options.megabytes << 20)
    except NoMemoryGroup as error:
        print(f"skipped: {error}", file=sys.stderr)
        return CANNOT
    if options.json:
        print(json.dumps(results))
    else:
        show(results)
    missed = failures(results)
    for what in missed:
        print(f"missed: {what}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
