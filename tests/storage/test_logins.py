"""Changing the login of new connections while an engine is open."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from storage.engine import open_blocking_engine
from storage.errors import DatabaseUnavailable
from storage.logins import DatabaseLogin

URL = "postgresql://ana:old@db:5432/land?sslmode=require"


@pytest.mark.parametrize(
    ("url", "replaced"),
    [
        ("postgresql://ana:new@db:5432/land?sslmode=require", True),
        ("postgres://bea:new@db:5432/land?sslmode=require", True),
        ("postgresql://ana:new@other:5432/land?sslmode=require", False),
        ("postgresql://ana:new@db:5432/land", False),
        ("postgresql://ana:new@db:5432/land?sslmode=require&schema=cover", False),
        ("sqlite:///land.db", False),
    ],
)
def test_only_the_login_can_change(url: str, replaced: bool) -> None:
    """A URL with another user or password is used; one with another server, database or parameter is not."""
    assert DatabaseLogin(URL).replace(url) is replaced


@contextmanager
def existing_user(postgres_url: str, name: str) -> Iterator[None]:
    """Within the block, the PostgreSQL server has a user of this name, without a password."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        try:
            yield
        finally:
            connection.execute(f"DROP ROLE {name}")


def find_user(engine: Engine) -> str:
    """Return the user of a new connection, which is closed."""
    with engine.connect() as connection:
        user: str = connection.execute(text("SELECT current_user")).scalar_one()
    engine.dispose()
    return user


def test_a_rejected_url_changes_nothing(postgres_url: str) -> None:
    """After a URL that cannot be read or has another server is rejected, connections still use the earlier user."""
    login = DatabaseLogin(postgres_url)
    engine = open_blocking_engine(postgres_url, login=login)
    with existing_user(postgres_url, "eva"):
        with pytest.raises(DatabaseUnavailable):
            login.replace("mysql://eva@db/land")
        assert not login.replace("postgresql://eva@other/land")
        assert find_user(engine) == "postgres"


def test_the_earlier_login_is_tried_until_the_new_one_works(postgres_url: str) -> None:
    """While the new user does not exist, the earlier one connects; once the new one works, only it is used."""
    login = DatabaseLogin(postgres_url)
    engine = open_blocking_engine(postgres_url, login=login)
    assert login.replace(postgres_url.replace("//postgres@", "//ana@"))
    assert find_user(engine) == "postgres"
    with existing_user(postgres_url, "ana"):
        assert find_user(engine) == "ana"
    with pytest.raises(OperationalError, match="ana"):  # the earlier one is no longer tried
        find_user(engine)


def test_every_login_since_the_last_that_worked_is_tried(postgres_url: str) -> None:
    """After two changes without a connection, the database may have any of the three users."""
    login = DatabaseLogin(postgres_url.replace("//postgres@", "//ana@"))
    engine = open_blocking_engine(postgres_url, login=login)
    with existing_user(postgres_url, "ana"):
        assert find_user(engine) == "ana"
    for user in ("bea", "eva"):
        assert login.replace(postgres_url.replace("//postgres@", f"//{user}@"))
    with existing_user(postgres_url, "bea"):
        assert find_user(engine) == "bea"
    with existing_user(postgres_url, "ana"), pytest.raises(OperationalError, match="bea"):
        find_user(engine)
    with existing_user(postgres_url, "eva"), existing_user(postgres_url, "bea"):
        assert find_user(engine) == "eva"


@pytest.mark.parametrize(("existing", "found"), [("user8", "user8"), ("user6", "user6"), ("user5", "postgres")])
def test_the_number_of_logins_is_limited(postgres_url: str, existing: str, found: str) -> None:
    """After nine changes without a connection, only the three newest users and the last that worked are tried."""
    login = DatabaseLogin(postgres_url)
    engine = open_blocking_engine(postgres_url, login=login)
    for number in range(9):
        assert login.replace(postgres_url.replace("//postgres@", f"//user{number}@"))
    with existing_user(postgres_url, existing):
        assert find_user(engine) == found


def test_a_server_that_does_not_respond_is_tried_once() -> None:
    """If the connection times out, no other login is tried, because the time-outs would add up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://ana@127.0.0.1:{silent.getsockname()[1]}/db"
        login = DatabaseLogin(url)
        engine = open_blocking_engine(url, 1, login)
        assert login.replace(url.replace("//ana@", "//bea@"))
        with pytest.raises(OperationalError, match="timeout expired"):
            find_user(engine)
        silent.settimeout(0)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_the_login_that_worked_is_kept_through_two_changes(postgres_url: str) -> None:
    """After two changes to users that do not exist yet, the user that worked before them still connects."""
    login = DatabaseLogin(postgres_url)
    engine = open_blocking_engine(postgres_url, login=login)
    for user in ("bea", "eva"):
        assert login.replace(postgres_url.replace("//postgres@", f"//{user}@"))
    assert find_user(engine) == "postgres"
