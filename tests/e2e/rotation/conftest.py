"""A gateway on PostgreSQL and Redis whose secrets are in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key
from storage.private_files import replace_private_file
from tests.support import postgres, redis
from tests.support.callers import Callers
from tests.support.gateway import Gateway, make_gateway
from tests.support.requirements import missing
from tests.support.servers.sentry import Sink, running_sink

FIRST_PASSWORD = "first long password"


@dataclass
class Secrets:
    """The folder that SECRETS__URL names."""

    folder: Path

    def write(self, name: str, value: str) -> None:
        """Replace a secret atomically, as Vault Agent and Kubernetes do."""
        with replace_private_file(self.folder / name) as (_, file):
            file.write(f"{value}\n")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text().strip()


@dataclass
class Site:
    """A gateway and the servers that it depends on."""

    gateway: Gateway
    secrets: Secrets
    database: postgres.Postgres
    limits: redis.Redis
    sinks: tuple[Sink, Sink]

    def log(self) -> str:
        """Return the log without the lines of requests."""
        return "\n".join(line for line in self.gateway.log().splitlines() if '"atalaya.access"' not in line)

    def count(self, setting: str) -> int:
        """Return how often the gateway has applied a change of the secret."""
        return sum('"secret_changed"' in line and f'"{setting}"' in line for line in self.log().splitlines())

    def database_url(self, password: str, user: str = "atalaya") -> str:
        address = self.database.url.partition("@")[2]
        return f"postgresql://{user}:{password.replace(' ', '%20')}@{address}/atalaya"

    def administer(self, *statements: str) -> None:
        """Run statements as PostgreSQL's superuser."""
        with psycopg.connect(f"{self.database.url}/atalaya", autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def callers(self) -> Callers:
        return Callers(self.gateway.port, self.gateway.token())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("rotation")
    secrets = Secrets(folder / "secrets")
    secrets.folder.mkdir()
    try:
        with (
            postgres.running() as database,
            redis.running(folder) as limits,
            running_sink() as first,
            running_sink() as second,
        ):
            yield from _run_site(folder, Site(None, secrets, database, limits, (first, second)))  # type: ignore[arg-type]
    except LookupError as error:
        missing(str(error))


def _run_site(folder: Path, site: Site) -> Iterator[Site]:
    with psycopg.connect(f"{site.database.url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE ROLE atalaya LOGIN PASSWORD '{FIRST_PASSWORD}'")
        connection.execute("CREATE DATABASE atalaya OWNER atalaya")
    site.database.require_passwords()
    values = {
        "AUTH__SIGNING_KEY": generate_signing_key("ES256"),
        "LEDGER__SIGNING_KEY": new_private_key(),
        "DATABASE_URL": site.database_url(FIRST_PASSWORD),
        "REDIS_URL": site.limits.url,
        "SENTRY_DSN": site.sinks[0].dsn,
    }
    for name, value in values.items():
        site.secrets.write(name, value)
    gateway = make_gateway(
        folder,
        MODEL__URL="stub://",
        MODEL__QUEUE_SECONDS="60",  # no overload on a slow machine
        LIMITS__PREDICT="10000000/minute",
        DATABASE_URL=values["DATABASE_URL"],
        SECRETS__URL=f"file://{site.secrets.folder}",
        SECRETS__REFRESH_SECONDS="1",
    )
    for name in values:
        gateway.environment.pop(name, None)
    site.gateway = gateway
    gateway.start()
    try:
        yield site
        assert gateway.stop() == 0, gateway.log()
    finally:
        if gateway.is_running:
            gateway.kill()
