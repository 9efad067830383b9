"""Fixtures that tests of several packages share: real servers, and a real gateway as its own process."""

from __future__ import annotations

import asyncio
import gc
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import uvloop
from hypothesis import HealthCheck, settings
from sqlalchemy.ext.asyncio import AsyncEngine

import auth
import monitoring
from storage.engine import open_engine
from storage.migrations import migrate
from tests.support import postgres, redis
from tests.support.gateway import Gateway, make_gateway
from tests.support.linux.process_state import list_changes, read_process_state
from tests.support.months import wait_out_the_end_of_the_month
from tests.support.polling import PATIENCE_S
from tests.support.requirements import missing
from tests.support.servers.identity_provider import IdentityProvider
from tests.support.servers.running import running

# A busy machine may need longer for an example, and to generate it, than Hypothesis expects.
settings.register_profile("atalaya", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("atalaya")

# A shell starts background jobs with SIGINT ignored, and every program that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests on the event loop of the gateway, which differs from asyncio's in details."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the long files first, in the random order that pytest-randomly has given them."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Exclude the collected tests and the imported modules from garbage collection: it took a fifth of their time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def process_state() -> Iterator[None]:
    """Fail a test that does not restore the process state that it has changed."""
    before = read_process_state()
    yield
    changes = list_changes(before, read_process_state())
    assert changes == []


@pytest.fixture(autouse=True)
def home(process_state: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:  # noqa: ARG001  (ends last)
    """The ATALAYA_HOME of this test, without which commands and settings would read the checkout's .env."""
    monkeypatch.setenv("ATALAYA_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a temporary PostgreSQL server, without a database name."""
    try:
        with postgres.running() as server:
            yield server.url
    except LookupError as error:
        missing(str(error))


@pytest.fixture
def postgres_url(postgres_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a PostgreSQL database that this test alone uses; empty, unless the test uses `migrated_url`."""
    name = f"test_{uuid4().hex}"
    with_tables = "migrated_url" in request.fixturenames
    template = request.getfixturevalue("migrated_template") if with_tables else "template1"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        postgres.execute_when_unused(connection, f"CREATE DATABASE {name} TEMPLATE {template}")
        yield f"{postgres_server}/{name}"
        postgres.execute_when_unused(connection, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[redis.Redis]:
    """An empty Redis server that this test alone uses."""
    try:
        with redis.running(tmp_path) as server:
            yield server
    except LookupError as error:
        missing(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/users.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with all tables, which tests copy: a copy takes a hundredth of the time of the migrations."""
    path = tmp_path_factory.mktemp("migrated") / "database.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def migrated_template(postgres_server: str) -> str:
    """The name of a PostgreSQL database with all tables, from which the server creates those of the tests."""
    name = "migrated"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    asyncio.run(_migrate(f"{postgres_server}/{name}"))
    return name


async def _migrate(url: str) -> None:
    engine = open_engine(url)
    await migrate(engine, auth.MIGRATIONS, monitoring.MIGRATIONS)
    await engine.dispose()


@pytest.fixture
def migrated_url(database_url: str, request: pytest.FixtureRequest) -> str:
    """The URL of a database with all tables; on PostgreSQL, `postgres_url` has created them."""
    if database_url.startswith("sqlite"):
        shutil.copy(request.getfixturevalue("migrated_file"), database_url.removeprefix("sqlite:///"))
    return database_url


@pytest.fixture
async def engine(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine for a database with all tables, once on SQLite and once on PostgreSQL."""
    engine = open_engine(migrated_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def patient_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let statements wait longer for SQLite's lock, for tests that write concurrently: one commit may take seconds."""
    monkeypatch.setattr("storage.engine.SQLITE_WAIT_S", int(PATIENCE_S))


@pytest.fixture
def patient_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the ledger's commits take longer: entries whose commit is aborted are spooled before they are stored."""
    monkeypatch.setattr("monitoring.ledger.ledger.COMMIT_TIMEOUT_S", PATIENCE_S)


@pytest.fixture
def new_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """A function that starts a gateway that this test alone uses, with changed settings."""
    gateways: list[Gateway] = []

    def start(**changes: str) -> Gateway:
        folder = tmp_path / str(len(gateways))
        folder.mkdir()
        gateway = make_gateway(folder, **changes)
        gateways.append(gateway)
        gateway.start()
        return gateway

    yield start
    for gateway in gateways:
        if gateway.is_running:
            gateway.stop()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all tests that do not change its settings or its users."""
    gateway = make_gateway(tmp_path_factory.mktemp("gateway"))
    gateway.start()
    yield gateway
    assert gateway.stop() == 0, gateway.log()


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    """An external identity provider that this test alone uses."""
    with running(IdentityProvider()) as provider:
        yield provider


@pytest.fixture
def within_one_month() -> None:
    """Prevent a test that counts a monthly quota from running across the end of a UTC month."""
    wait_out_the_end_of_the_month()
