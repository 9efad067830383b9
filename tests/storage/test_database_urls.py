"""The URLs of databases, as platforms and other ecosystems write them."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from storage.engine import open_blocking_engine, open_engine
from storage.errors import DatabaseUnavailable
from storage.transactions import ping
from storage.urls import DatabaseUrl, read_database_url
from tests.support.ports import refusing_port

HOST = "postgresql+psycopg://u:p@host/db"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@host:1/db?sslmode=require", "postgresql+psycopg://u:p@host:1/db?sslmode=require"),
        ("postgresql://host/db", "postgresql+psycopg://host/db"),
        ("postgresql+psycopg://host/db", "postgresql+psycopg://host/db"),
        ("postgresql+psycopg2://host/db", "postgresql+psycopg://host/db"),
        ("postgresql+asyncpg://host/db", "postgresql+psycopg://host/db"),
        ("postgresql://u:p@[::1]:5432/db", "postgresql+psycopg://u:p@[::1]:5432/db"),
        ("postgresql://u:p@host/db\n", HOST),
        ("postgresql://u:p@host/db?ssl=true", f"{HOST}?sslmode=require"),
        ("postgresql://u:p@host/db?ssl=false", f"{HOST}?sslmode=disable"),
        ("postgresql://u:p@host/db?sslmode=no-verify", f"{HOST}?sslmode=require"),
        ("postgresql://u:p@host/db?pgbouncer=true", HOST),
        ("postgresql:///db?host=/run/postgresql", "postgresql+psycopg:///db?host=%2Frun%2Fpostgresql"),
        (
            "postgresql:///db?host=a:1&host=b&sslmode=require",
            "postgresql+psycopg:///db?host=a%3A1&host=b&sslmode=require",
        ),
        ("postgresql:///db?host=a,b&port=1,2", "postgresql+psycopg:///db?host=a%2Cb&port=1%2C2"),
        ("sqlite:///var/users.db", "sqlite+aiosqlite:///var/users.db"),
        ("sqlite:////var/users.db", "sqlite+aiosqlite:////var/users.db"),
        ("sqlite+aiosqlite:///users.db", "sqlite+aiosqlite:///users.db"),
    ],
)
def test_urls_of_platforms_are_translated(url: str, expected: str) -> None:
    """The URLs that platforms and other ecosystems provide work unchanged."""
    assert read_database_url(url) == DatabaseUrl(expected)


def test_schema_is_taken_from_the_url() -> None:
    """`schema`, which libpq does not know, is read from the URL and removed."""
    assert read_database_url("postgresql://u:p@host/db?schema=land") == DatabaseUrl(HOST, "land")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must start with postgresql:// or sqlite:///"),
        ("users.db", "must start with postgresql:// or sqlite:///"),
        ("mysql://u:hush@h/db", "must start with postgresql:// or sqlite:///"),
        ("postgresql://u:hush@host:port/db", "cannot be read.*%40"),
        ("postgresql://u:hush@host:0/db", "cannot be read"),
        ("postgresql://u:hu@sh@host/db", "cannot be read"),
        ("postgresql://u:hush?word=1@host/db", "cannot be read"),
        ("postgresql://u:hush@host/db?foo=1", "the parameter foo"),
        ("postgresql://u:hush@host/db?connection_limit=5", "the parameter connection_limit"),
        ("postgresql://u@host/db?password=hush", "the parameter password"),
        ("postgresql://u:hush@host/db?sslmode=maybe", "sslmode must be"),
        ("postgresql://u:hush@host/db?ssl=maybe", "ssl must be true, false"),
        ("postgresql://u:hush@host/db?sslmode=require&sslmode=disable", "the parameter sslmode more than once"),
        ("postgresql://u:hush@/db?schema=a&schema=b", "the parameter schema more than once"),
        ("postgresql://u:hush@/db?host=a&host=b&port=1", "the hosts and ports do not match"),
        ("postgresql://u:hush@/db?host=[::1]:1&host=b", "write several hosts with IPv6 addresses as"),
        ("postgresql://u:hush@/db?host=a,b&port=1,2,3", "the hosts and ports do not match"),
        ("sqlite://users.db", "three slashes"),
        ("sqlite://", "must name a file"),
        ("sqlite:///", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite:///users.db?mode=hush", "SQLite takes none"),
    ],
)
def test_url_that_cannot_work_is_rejected(url: str, message: str) -> None:
    """A URL of an unsupported kind, form or parameter is rejected with its fault named and without its password."""
    with pytest.raises(DatabaseUnavailable, match=f"^DATABASE_URL.*{message}") as caught:
        open_engine(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("is_first", [True, False])
async def test_every_host_is_tried(postgres_url: str, is_first: bool) -> None:
    """With several hosts, a connection is made to the first one that accepts it, by both kinds of engine."""
    parts = urlsplit(postgres_url)
    with refusing_port() as unused:
        ports = (parts.port, unused) if is_first else (unused, parts.port)
        hosts = "&".join(f"host={parts.hostname}:{port}" for port in ports)
        url = f"postgresql://{parts.username}@{parts.path}?{hosts}"
        engine = open_engine(url)
        await ping(engine)
        await engine.dispose()
        blocking = open_blocking_engine(url)
        with blocking.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        blocking.dispose()
