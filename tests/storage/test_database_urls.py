"""The URLs of databases, as platforms and other ecosystems write them."""

from __future__ import annotations

import pytest

from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.urls import DatabaseUrl, read_database_url

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
        ("sqlite://users.db", "three slashes"),
        ("sqlite:///users.db?mode=hush", "SQLite takes none"),
    ],
)
def test_url_that_cannot_work_is_rejected(url: str, message: str) -> None:
    """A URL of an unsupported kind, form or parameter is rejected with its fault named and without its password."""
    with pytest.raises(DatabaseUnavailable, match=f"^DATABASE_URL.*{message}") as caught:
        open_engine(url)
    assert "hush" not in str(caught.value)
