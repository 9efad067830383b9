"""Compare the gateway with LitServe, BentoML and bare processes in one run, and write docs/generated/peers.md.

    python -m bench.peers.run [--rounds 5] [--seconds 4] [--output docs/generated/peers.md]

`make peers` sets up the environments of the peers first.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from bench.history import describe_commit, describe_machine, format_today
from bench.load import drive, send_once
from bench.peers.report import ATALAYA, BARE, Footprint, Run, format_page
from bench.peers.servers import Peer, Server, make_peers, running_atalaya, running_peer
from bench.rounds import CONNECTIONS, measure_bare, measure_server, run_rounds
from tests.support.paths import FOREST, MODEL_URL, ROOT

PACKAGES = ("onnxruntime", "pillow", "numpy", "starlette", "uvicorn")


def check_labels(servers: Mapping[str, Server]) -> None:
    """Raise ValueError unless all servers return the same label."""
    labels = {name: asyncio.run(send_once(server.port, server.request()))["label"] for name, server in servers.items()}
    if len(set(labels.values())) != 1:
        raise ValueError(f"the servers return different labels: {labels}")


def measure(peers: tuple[Peer, ...], rounds: int, seconds: float) -> Run:
    """Start all servers, then measure them in turn."""
    with ExitStack() as stack:
        servers = {ATALAYA: stack.enter_context(running_atalaya())}
        servers |= {peer.name: stack.enter_context(running_peer(peer)) for peer in peers}
        rest = {name: server.megabytes() for name, server in servers.items()}
        check_labels(servers)
        for server in servers.values():
            asyncio.run(drive(server.port, server.request(), 4, 1.0))
        measures = {name: measure_server(server.port, server.request) for name, server in servers.items()}
        results = run_rounds(
            {**measures, BARE: measure_bare(MODEL_URL, FOREST.read_bytes())}, CONNECTIONS, rounds, seconds
        )
        footprints = {
            name: Footprint(server.ready_s, rest[name], server.megabytes()) for name, server in servers.items()
        }
    versions = {ATALAYA: read_versions(Path(sys.executable), "atalaya")}
    versions |= {peer.name: read_versions(peer.environment / "bin" / "python", peer.name.lower()) for peer in peers}
    return Run(results, footprints, versions, describe_machine(), describe_commit(), format_today(), rounds, seconds)


def read_versions(python: Path, package: str) -> str:
    """Return the versions of the server's own package and of the packages that matter for its speed."""
    program = "import importlib.metadata as m, sys; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    command = [str(python), "-c", program, package, *PACKAGES]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "generated" / "peers.md")
    options = parser.parse_args()
    peers = make_peers(FOREST.read_bytes())
    missing = [peer.name for peer in peers if not peer.environment.exists()]
    if missing:
        print(f"error: {' and '.join(missing)} must be set up first. Run: make peers", file=sys.stderr)
        return 1
    page = format_page(measure(peers, options.rounds, options.seconds))
    options.output.write_text(page)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
