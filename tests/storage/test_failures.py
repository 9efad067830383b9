"""Databases that cannot be used: the reason for the operator names the server or file, and the cause."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

import auth
from storage.engine import check_sqlite_file, open_blocking_engine, open_engine
from storage.errors import DatabaseUnavailable
from storage.failures import describe_failure
from storage.migrations import migrate
from storage.transactions import database_errors, reading
from tests.support import postgres
from tests.support.gateway import make_gateway
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import refusing_port
from tests.support.requirements import missing

# The server requires no password from `postgres` and `nobody`.
_RULES = "host all guarded all scram-sha-256\nhostssl all encrypted all trust\nhost all postgres,nobody all trust"
READ_ONLY = quote("-c default_transaction_read_only=on")


@pytest.fixture(scope="module")
def guarded_url() -> Iterator[str]:
    """The URL of a database whose server, which only these tests use, requires a password from the user `guarded`."""
    try:
        with postgres.running() as server:
            _guard(f"{server.url}/postgres")
            yield f"{server.url}/postgres"
    except LookupError as error:
        missing(str(error))


def _guard(url: str) -> None:
    def rejects() -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(url, user="guarded", password="wrong").close()
            return False
        return True

    with psycopg.connect(url, autocommit=True) as connection:
        (path,) = connection.execute("SHOW hba_file").fetchone() or ("",)
        connection.execute(f"COPY (SELECT unnest(string_to_array('{_RULES}', E'\\n'))) TO '{path}'")
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'open sesame'; CREATE ROLE encrypted LOGIN")
        connection.execute("SELECT pg_reload_conf()")
        wait_until(rejects)


async def read_reason(url: str) -> str:
    """Return the reason why the migrations of the database fail."""
    engine = open_engine(url)
    try:
        with pytest.raises(DatabaseUnavailable) as caught:
            await migrate(engine, auth.MIGRATIONS)
        # The message reaches HTTP clients: it names no server and no user.
        assert str(caught.value) in (
            "The database cannot be reached. Check DATABASE_URL, or try again later.",
            "The database cannot be used now. Try again later.",
        )
        assert caught.value.reason is not None
        return caught.value.reason
    finally:
        await engine.dispose()


async def test_cause_of_a_failed_connection_is_named(guarded_url: str) -> None:
    """Each cause of a failed connection has its own sentence, with the host and without the password."""
    with refusing_port() as unused:
        await check_causes(guarded_url, unused)


async def check_causes(guarded_url: str, unused: int) -> None:
    server = urlsplit(guarded_url)
    address, name = f"127.0.0.1:{server.port}", server.path
    expected = {
        f"guarded:hush@{address}{name}": f'at {address}: authentication failed for user "guarded". Check the user and',
        f"guarded@{address}{name}": f"at {address}: the server requires a password, and DATABASE_URL has none.",
        f"nobody:hush@{address}{name}": f'at {address}: the user "nobody" does not exist.',
        f"postgres:hush@{address}/nodb": f'at {address}: the database "nodb" does not exist.',
        f"postgres:hush@nowhere.invalid{name}": "at nowhere.invalid: the host was not found.",
        f"postgres:hush@127.0.0.1:{unused}{name}": f"at 127.0.0.1:{unused}: the connection was refused.",
        f"postgres:hush@{address}{name}?ssl=true": f"at {address}: the server does not support TLS",
        f"encrypted:hush@{address}{name}": f"at {address}: the server requires TLS",
        "postgres:hush@/db?host=/nowhere": "at /nowhere: the socket does not exist.",
        f"postgres:hush@{address}{name}?schema=land": f"at {address}: the schema in DATABASE_URL does not exist.",
        f"postgres:hush@{address}{name}?options={READ_ONLY}": f"at {address}: it is read-only.",
        f"guarded:open%20sesame@{address}{name}": f'at {address}: permission denied for "schema public".',
    }
    for url, reason in expected.items():
        found = await read_reason(f"postgresql://{url}")
        assert found.startswith(f"PostgreSQL {reason}"), found
        assert "hush" not in found


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:////var/lib/atalaya.db", "DATABASE_URL: /var/lib/atalaya.db"),
        ("postgresql://ana@db.example:5432/atalaya", "PostgreSQL at db.example:5432"),
        ("postgresql://ana@/atalaya?host=a:1&host=b:2", "PostgreSQL at a:1, b:2"),
    ],
)
def test_a_pool_without_free_connections_is_named(url: str, name: str) -> None:
    """A process whose connections are all in use reports that, with the file or the server."""
    reason = describe_failure(PoolTimeoutError("QueuePool limit"), make_url(url))
    assert reason == f"{name}: all connections of this process are in use. Try again later."


def test_missing_response_is_named() -> None:
    """The error for a server that accepts the connection but does not respond names the server and the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        engine = open_blocking_engine(f"postgresql://u:hush@127.0.0.1:{port}/db", wait_s=1)
        with pytest.raises(DatabaseUnavailable) as caught, database_errors(engine.url), engine.begin():
            """Not reached."""
    assert (caught.value.reason or "").startswith(f"PostgreSQL at 127.0.0.1:{port}: it did not respond in time.")


def test_long_statements_do_not_allow_long_connecting() -> None:
    """An engine for statements of an hour fails to connect after about five seconds, if the server stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = open_blocking_engine(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/db", wait_s=3600)
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable), database_errors(engine.url), engine.begin():
            """Not reached."""
    assert 4 < time.monotonic() - began < PATIENCE_S


async def test_cause_of_an_unusable_file_is_named(tmp_path: Path) -> None:
    """The errors for a folder, a file that is not a database and a folder that cannot be created name the cause."""
    (tmp_path / "text.db").write_text("This is not a database, although it is long enough to have a head. " * 20)
    expected = {
        tmp_path: "cannot be opened. Check that it is a file",
        tmp_path / "text.db": "is not an SQLite database.",
        tmp_path / "text.db" / "users.db": "cannot be created",
    }
    for path, reason in expected.items():
        with pytest.raises(DatabaseUnavailable) as caught:
            check_sqlite_file(f"sqlite:///{path}")
        assert "DATABASE_URL: " in (caught.value.reason or "")
        assert reason in (caught.value.reason or "")


async def test_full_disk_and_read_only_database_are_named(tmp_path: Path) -> None:
    """SQLite's errors for a full disk and a read-only database name the file and the cause."""
    engine = open_engine(f"sqlite:///{tmp_path}/users.db")
    expected = {"max_page_count = 1": "its disk is full", "query_only = ON": "cannot be written"}
    try:
        for pragma, cause in expected.items():
            with pytest.raises(DatabaseUnavailable) as caught:
                await fill(engine, pragma)
            assert cause in (caught.value.reason or "")
            assert f"{tmp_path}/users.db" in (caught.value.reason or "")
    finally:
        await engine.dispose()


async def fill(engine: AsyncEngine, pragma: str) -> None:
    """Create a table on a connection with the pragma."""
    async with reading(engine) as connection:
        await connection.execute(text(f"PRAGMA {pragma}"))
        await connection.execute(text("CREATE TABLE plots (id)"))


def test_commands_print_the_cause(tmp_path: Path) -> None:
    """A command prints one line with the server and the cause, and without the password."""
    gateway = make_gateway(tmp_path)
    with refusing_port() as port:
        gateway.environment["DATABASE_URL"] = f"postgres://ana:hush@127.0.0.1:{port}/land\n"
        all_done = [gateway.run(*command) for command in (["users", "list"], ["ledger", "verify"], ["serve"])]
    for done in all_done:
        assert done.returncode == 1
        assert done.stderr.startswith("error: PostgreSQL at 127.0.0.1:"), done.stderr
        assert "refused" in done.stderr
        assert done.stderr.count("\n") == 1
        assert "hush" not in done.stderr
