"""The user name and password for new connections, which may change while engines are open."""

from __future__ import annotations

from threading import Lock
from typing import Any

from msgspec import Struct
from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine import URL, make_url

from storage.urls import read_database_url

_MAX_LOGINS = 4
"""How many logins a connection tries at most."""


class _Login(Struct, frozen=True):
    user: str | None
    password: str | None

    def apply(self, parameters: dict[str, Any]) -> dict[str, Any]:
        login = {"user": self.user, "password": self.password}
        others = {name: value for name, value in parameters.items() if name not in login}
        return others | {name: value for name, value in login.items() if value is not None}


class DatabaseLogin:
    """The login of a PostgreSQL URL, used by every engine that `follow` was called with. Thread-safe.

    Each connection tries the newest login first, then earlier ones, back to the last that has worked. So connections
    succeed both before and after the database gets a new login, even after three changes in a row.

    Raises DatabaseUnavailable for a URL that cannot be read.
    """

    def __init__(self, url: str) -> None:
        self._target, login = _split(url)
        self._lock = Lock()
        # The newest first. All but the last have not succeeded yet.
        self._logins: tuple[_Login, ...] = (login,)

    def replace(self, url: str) -> bool:
        """Use the login of `url` for new connections. Returns False, and changes nothing, if another part differs.

        Raises DatabaseUnavailable for a URL that cannot be read.
        """
        target, login = _split(url)
        if target != self._target:
            return False
        with self._lock:
            if login != self._logins[0]:
                *unproven, last = (each for each in self._logins if each != login)
                self._logins = (login, *unproven[: _MAX_LOGINS - 2], last)
        return True

    def follow(self, engine: Engine) -> None:
        """Make an engine connect with the current login."""
        event.listen(engine, "do_connect", self._connect)

    def _connect(self, dialect: Dialect, _record: object, arguments: Any, parameters: dict[str, Any]) -> Any:
        *unproven, last = self._logins
        for login in unproven:
            try:
                connection = dialect.connect(*arguments, **login.apply(parameters))
            except dialect.loaded_dbapi.errors.ConnectionTimeout:
                raise  # the server does not respond, whatever the login
            except dialect.loaded_dbapi.Error:
                continue
            self._forget_before(login)
            return connection
        return dialect.connect(*arguments, **last.apply(parameters))

    def _forget_before(self, proven: _Login) -> None:
        """Forget the logins before one that has succeeded, unless it was itself forgotten meanwhile."""
        with self._lock:
            if any(login is proven for login in self._logins):
                self._logins = self._logins[: self._logins.index(proven) + 1]


def _split(url: str) -> tuple[tuple[URL, str | None], _Login]:
    """Return the URL without its login together with the schema, and the login."""
    database = read_database_url(url)
    parsed = make_url(database.url)
    # `URL.set` cannot remove the login, because it ignores arguments that are None.
    target = URL.create(parsed.drivername, None, None, parsed.host, parsed.port, parsed.database, parsed.query)
    return (target, database.schema), _Login(parsed.username, parsed.password)
