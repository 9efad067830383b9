"""Three replicas of the gateway behind the shipped Caddy, which share PostgreSQL, Redis, their keys and a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import psycopg

from auth.principal import Role
from tests.e2e.proxies.servers import shipped_caddy
from tests.model.registry.registered_models import ModelRegistry
from tests.support import postgres, redis
from tests.support.certificates import Authority, make_authority
from tests.support.gateway import TIMEOUT_S, Gateway, create_database, make_gateway
from tests.support.postgres import Postgres

Result = TypeVar("Result")

REPLICAS = 3
USERS = ("rita", "alia", "ulla", "kim", "dora")
"""One user for each test but the one of limits, which adds its own, so that no test uses up another's limits."""
REQUESTS = 400
"""The requests that a principal may make in an hour, apart from predictions."""
SETTINGS = {
    "LIMITS__REQUESTS": f"{REQUESTS}/hour",
    "LIMITS__TRUSTED_PROXIES": "127.0.0.1",
    "MODEL__WORKERS": "1",
    # Long enough that a slow machine rejects no request.
    "MODEL__QUEUE_SECONDS": "60",
    "MODEL__DEADLINE_SECONDS": "300",
    # Longer than Caddy takes to notice that a replica is draining.
    "DRAIN_SECONDS": "3",
}


@dataclass(frozen=True)
class Cluster:
    """Started replicas, and the address of Caddy in front of them."""

    replicas: list[Gateway]
    url: str
    authority: Authority
    postgres: Postgres
    registry: ModelRegistry

    def client(self) -> httpx.Client:
        """A client of Caddy, without credentials."""
        return httpx.Client(base_url=self.url, verify=self.authority.ssl_context(), timeout=TIMEOUT_S)

    def create_key(self, user: str) -> str:
        """Create an API key for a user."""
        key: str = self.replicas[0].client(user).post("/v1/keys", json={"name": "test"}).json()["key"]
        return key

    def each(self, act: Callable[[Gateway], Result]) -> list[Result]:
        """Call `act` on all replicas at once, and return the results in the order of the replicas."""
        with ThreadPoolExecutor(REPLICAS) as pool:
            return list(pool.map(act, self.replicas))

    def count_entries(self, ids: Sequence[str | None] | None = None) -> int:
        """Return how many successful predictions the ledger contains, or how many with these ids."""
        statement = """
            SELECT count(*) FROM ledger_payloads
            WHERE status = 200 AND (%(ids)s::text[] IS NULL OR id = ANY(%(ids)s))
        """
        with psycopg.connect(self.replicas[0].environment["DATABASE_URL"]) as connection:
            (count,) = connection.execute(statement, {"ids": ids}).fetchone() or (0,)
        return int(count)


def address_of(replica: Gateway) -> str:
    """Return the address by which Caddy identifies a replica."""
    return f"127.0.0.1:{replica.port}"


@contextmanager
def running_cluster(folder: Path, registry: ModelRegistry) -> Iterator[Cluster]:
    """Run the databases, replicas and Caddy. Raises LookupError if PostgreSQL or Redis is not installed."""
    with postgres.running() as database, redis.running(folder) as counts:
        with psycopg.connect(f"{database.url}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE atalaya")
        create_database(f"{database.url}/atalaya", **dict.fromkeys(USERS, Role.CLIENT))
        shared = {"DATABASE_URL": f"{database.url}/atalaya", "REDIS_URL": counts.url, **registry.settings}
        (folder / "replica-0").mkdir()
        first = make_gateway(folder / "replica-0", **SETTINGS, **shared)
        replicas = [first, *(first.replica(folder / f"replica-{index}") for index in range(1, REPLICAS))]
        authority = make_authority(folder / "pki")
        with _started(replicas), shipped_caddy(folder, authority, *replicas, names_replicas=True) as url:
            yield Cluster(replicas, url, authority, database, registry)


@contextmanager
def _started(replicas: Sequence[Gateway]) -> Iterator[None]:
    try:
        with ThreadPoolExecutor(REPLICAS) as pool:
            list(pool.map(Gateway.start, replicas))
        yield
    finally:
        with ThreadPoolExecutor(REPLICAS) as pool:
            list(pool.map(Gateway.stop, [replica for replica in replicas if replica.is_running]))
