"""Read database URLs in the forms that platforms and other ecosystems use. Imports no database library."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, quote, urlencode

from msgspec import Struct

from storage.errors import DatabaseUnavailable

_POSTGRES, _SQLITE = "postgresql+psycopg", "sqlite+aiosqlite"
_DRIVERS = {
    **dict.fromkeys(("postgres", "postgresql"), _POSTGRES),
    **dict.fromkeys((f"postgresql+{driver}" for driver in ("psycopg", "psycopg2", "asyncpg")), _POSTGRES),
    **dict.fromkeys(("sqlite", "sqlite+aiosqlite", "sqlite+pysqlite"), _SQLITE),
}
_ESCAPE = (
    "DATABASE_URL cannot be read. Write special characters of the user and the password as %XX: @ is %40, "
    "/ is %2F, : is %3A, ? is %3F, # is %23 and % is %25."
)
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# asyncpg, node-postgres and JDBC use `ssl`; node-postgres and Prisma have their own names for libpq's modes.
_SSL_ALIASES = {"true": "require", "1": "require", "false": "disable", "0": "disable", "no-verify": "require"}
# libpq's parameters (PostgreSQL manual, section 34.1.2), except user, password and database, which the URL itself has.
_LIBPQ_PARAMETER = re.compile(
    "application_name|channel_binding|client_encoding|connect_timeout|gssencmode|host|hostaddr|keepalives"
    "|keepalives_(count|idle|interval)|krbsrvname|load_balance_hosts|options|passfile|port|require_auth|requirepeer"
    "|ssl(cert|certmode|crl|crldir|key|negotiation|password|rootcert|sni)|ssl_m(ax|in)_protocol_version"
    "|target_session_attrs|tcp_user_timeout"
)


class DatabaseUrl(Struct, frozen=True):
    """A URL for SQLAlchemy's asynchronous driver with libpq's parameters, and PostgreSQL's schema if one was named."""

    url: str
    schema: str | None = None


def read_database_url(text: str) -> DatabaseUrl:
    """Translate a URL. Raises DatabaseUnavailable, whose message contains neither the password nor any value."""
    scheme, separator, rest = text.strip().partition("://")
    driver = _DRIVERS.get(scheme.lower()) if separator else None
    if driver is None:
        raise DatabaseUnavailable("DATABASE_URL must start with postgresql:// or sqlite:///.")
    base, _, query = rest.partition("?")
    return _read_sqlite(base, query) if driver == _SQLITE else _read_postgres(base, query)


def _read_sqlite(base: str, query: str) -> DatabaseUrl:
    if base and not base.startswith("/"):
        raise DatabaseUnavailable(
            "DATABASE_URL must be sqlite:///PATH with three slashes, or sqlite:////PATH for an absolute path."
        )
    if not base.strip("/") or base.startswith("/:memory:"):
        raise DatabaseUnavailable("DATABASE_URL must name a file: sqlite:///PATH. A database in memory would be lost.")
    if query:
        raise DatabaseUnavailable("DATABASE_URL has parameters after the question mark: SQLite takes none.")
    return DatabaseUrl(f"{_SQLITE}://{base}")


def _read_postgres(base: str, query: str) -> DatabaseUrl:
    if base.count("@") > 1 or "@" in query or not _has_valid_address(base):
        raise DatabaseUnavailable(_ESCAPE)
    pairs = parse_qsl(query, keep_blank_values=True)
    parameters = _translate(dict(pairs))
    schema = parameters.pop("schema", None)
    hosts = [value for name, value in pairs if name == "host"]
    _check_repeated([name for name, _ in pairs], hosts)
    encoded = urlencode({**parameters, **({"host": hosts} if hosts else {})}, doseq=True, quote_via=quote)
    return DatabaseUrl(f"{_POSTGRES}://{base}{'?' if encoded else ''}{encoded}", schema)


def _has_valid_address(base: str) -> bool:
    """Whether what follows the credentials is HOST[:PORT][/NAME]."""
    address = base.rpartition("@")[2].partition("/")[0]
    parts = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:/#\s]*)(?::(\d{1,5}))?", address)
    return parts is not None and int(parts[1] or 5432) in range(1, 65_536)


def _translate(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return libpq's parameters, and `schema`. Raises DatabaseUnavailable for any other parameter."""
    translated: dict[str, str] = {}
    for name, value in parameters.items():
        if name in ("ssl", "sslmode"):
            translated["sslmode"] = _read_ssl_mode(name, value)
        elif name == "pgbouncer":
            continue  # every connection works behind PgBouncer anyway
        elif (name == "schema" and value) or _LIBPQ_PARAMETER.fullmatch(name):
            translated[name] = value
        else:
            named = f"the parameter {name}" if re.fullmatch(r"\w+", name) else "a parameter"
            raise DatabaseUnavailable(f"DATABASE_URL has {named}, which PostgreSQL does not support. Remove it.")
    return translated


def _check_repeated(names: Sequence[str], hosts: Sequence[str]) -> None:
    """Only `host` may be repeated: of any other parameter, only the last would count. Raises DatabaseUnavailable."""
    repeated = [name for name, count in Counter(names).items() if count > 1 and name != "host"]
    if repeated:
        raise DatabaseUnavailable(f"DATABASE_URL has the parameter {repeated[0]} more than once. Keep one of them.")
    if len(hosts) > 1 and any(host.count(":") > 1 for host in hosts):  # SQLAlchemy would cut the address off
        form = "?host=ADDRESS,ADDRESS&port=PORT,PORT"
        raise DatabaseUnavailable(f"DATABASE_URL: write several hosts with IPv6 addresses as {form}.")


def _read_ssl_mode(name: str, value: str) -> str:
    mode = _SSL_ALIASES.get(value.lower(), value.lower())
    if mode not in _SSL_MODES:
        raise DatabaseUnavailable(f"DATABASE_URL: {name} must be true, false, or one of {', '.join(_SSL_MODES)}.")
    return mode
