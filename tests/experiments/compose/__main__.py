"""Start docker-compose.yml with a Docker engine, predict through TLS, and restart each part under load.

    python -m tests.experiments.compose

Requires an engine with Compose 2.24 or newer and BuildKit, and the ports that docker-compose.yml publishes. Images that
Docker neither has nor can pull are replaced by ones with Debian's packages, which requires root, mmdebstrap and a
Debian mirror; without Grafana's image, Grafana is not started.

Prints one line for each check, and stops at the first that fails. Exit status 0 if all succeeded; 1 otherwise.
Removes everything that it created.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from tests.deploy.topology.compose_file import read_compose_file
from tests.experiments.compose.checks import Checks
from tests.experiments.compose.project import copy_repository
from tests.experiments.compose.stand_ins import is_available, stand_ins


def list_checks(checks: Checks) -> dict[str, Callable[[], str]]:
    """Return the checks by what they show, in order."""
    return {
        "every service starts": checks.start,
        "a prediction through TLS": checks.predict,
        "the memory of a gateway at rest": checks.rest,
        "two more gateways": checks.add_replicas,
        "Prometheus scrapes all": checks.scrape,
        "a gateway crashes under load": checks.crash_replica,
        "a gateway is restarted under load": partial(checks.restart, "gateway-3"),
        "Redis is restarted under load": partial(checks.restart, "redis"),
        "PostgreSQL is restarted under load": partial(checks.restart, "postgres"),
        "the ledger is complete": checks.verify_ledger,
        "down --volumes": checks.remove,
    }


def run(name: str, check: Callable[[], str]) -> bool:
    """Run one check and print its line; return whether it succeeded."""
    started = time.monotonic()
    try:
        found, verdict = check(), "ok"
    except (AssertionError, httpx.HTTPError) as error:
        found, verdict = str(error), "FAILED"
    print(f"{name:<36}{time.monotonic() - started:>6.1f} s   {verdict:<6}  {found}", flush=True)
    return verdict == "ok"


def main() -> int:
    with TemporaryDirectory() as folder, stand_ins() as options:
        project = copy_repository(Path(folder))
        if not is_available(read_compose_file({})["services"]["grafana"]["image"]):
            project.leave_out("grafana")
        checks = Checks(project, options)
        try:
            succeeded = all(run(name, check) for name, check in list_checks(checks).items())
        finally:
            checks.remove()
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
