"""Describe database failures to the operator: one sentence with the server or file, the cause, and what to do.

The sentences contain hosts, users and files, but no passwords. They are for terminals and logs, not for HTTP responses.
"""

from __future__ import annotations

import re
from typing import TypeGuard

from sqlalchemy.engine import URL
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

# What libpq, psycopg, PostgreSQL and PgBouncer report -> what to tell the operator. The first match is used, and its
# groups are inserted. Only the text can be matched, because libpq reports no SQLSTATE when it fails to connect.
_POSTGRES_CAUSES = (
    (
        r"password authentication failed(?: for user \"([^\"]+)\")?|SASL authentication failed|no such user",
        "authentication failed for user {user}. Check the user and the password in DATABASE_URL",
    ),
    (r"no password supplied", "the server requires a password, and DATABASE_URL has none"),
    (r"role \"([^\"]+)\" does not exist", "the user {0} does not exist. Check the user in DATABASE_URL"),
    (
        r"database \"([^\"]+)\" does not exist|no such database: (\S+)",
        "the database {0} does not exist. Create it, or correct the name in DATABASE_URL",
    ),
    (r"resolve host|translate host name|Name or service not known", "the host was not found. Check it in DATABASE_URL"),
    (
        r"does not support SSL|SSL required but not supported",
        "the server does not support TLS, which sslmode in DATABASE_URL requires",
    ),
    (
        r"pg_hba\.conf.*(?:no encryption|SSL off)|SSL (?:is )?required",
        "the server requires TLS, or does not accept"
        " this user from this address. Add ?sslmode=require to DATABASE_URL, or correct the server's pg_hba.conf",
    ),
    (r"pg_hba\.conf", "the server does not accept this user from this address. Correct its pg_hba.conf"),
    (
        r"certificate verify failed|root certificate file|does not match host name",
        "the server's certificate cannot be verified. Check sslmode and sslrootcert in DATABASE_URL",
    ),
    (r"SSL error|SSL SYSCALL", "the TLS handshake failed. Check sslmode in DATABASE_URL, and the server's log"),
    (r"unsupported startup parameter: (\w+)", "the pooler rejects the parameter {0}. Remove it from DATABASE_URL"),
    (r"Connection refused", "the connection was refused. Start the server, or correct host and port in DATABASE_URL"),
    (r"No such file or directory", "the socket does not exist. Start the server, or correct the host in DATABASE_URL"),
    (r"unreachable|No route to host", "the host cannot be reached over the network"),
    (r"timeout expired|timed out", "it did not respond in time. Check host and port in DATABASE_URL, and firewalls"),
    (
        r"too many (?:clients|connections)|connection slots",
        "it has no free connection. Raise max_connections",
    ),
    (r"starting up|shutting down|in recovery mode", "it is starting or stopping. Try again later"),
    (r"no schema has been selected", "the schema in DATABASE_URL does not exist. Create it"),
    (r"permission denied for (\w+ \S+)", "permission denied for {0}. Grant user {user} access to it"),
    (r"read-only transaction", "it is read-only. Name the primary server in DATABASE_URL"),
    (r"No space left on device|could not extend file", "its disk is full"),
)
_SQLITE_CAUSES = (
    (
        r"unable to open database file",
        "cannot be opened. Check that it is a file in an existing folder, and their permissions",
    ),
    (r"readonly database", "cannot be written. Check its permissions and those of its folder"),
    (r"disk is full", "cannot grow: its disk is full"),
    (r"not a database", "is not an SQLite database. Correct DATABASE_URL, or move the file away"),
    (r"malformed", "is damaged. Restore a backup"),
    (r"locked", "is locked by another writer. Try again later"),
    (r"disk I/O error", "cannot be read or written: the disk reports an error"),
)


def describe_failure(error: Exception, url: URL | None) -> str | None:
    """Return the sentence, or None if the cause is not recognised. Without `url`, it names no server or file."""
    report = str(getattr(error, "orig", None) or error)
    if isinstance(error, PoolTimeoutError):
        return f"{_name_database(url)}: all connections of this process are in use. Try again later."
    if _is_sqlite(url):
        cause = _find_cause(_SQLITE_CAUSES, report, "")
        return f"{_name_database(url)} {cause}." if cause else None
    cause = _find_cause(_POSTGRES_CAUSES, report, (url and url.username) or "")
    return f"{_name_database(url)}: {cause}." if cause else None


def _find_cause(causes: tuple[tuple[str, str], ...], report: str, user: str) -> str | None:
    for pattern, cause in causes:
        if match := re.search(pattern, report, re.DOTALL):
            groups = [f'"{group}"' for group in match.groups() if group]
            return cause.format(*groups, user=f'"{user}"' if user else next(iter(groups), "of this process"))
    return None


def _is_sqlite(url: URL | None) -> TypeGuard[URL]:
    return url is not None and url.get_backend_name() == "sqlite"


def _name_database(url: URL | None) -> str:
    if url is None:
        return "The database"
    if _is_sqlite(url):
        return f"DATABASE_URL: {url.database}"
    named = url.query.get("host", url.host) or "on this machine"
    host = named if isinstance(named, str) else ", ".join(named)
    return f"PostgreSQL {'' if host == 'on this machine' else 'at '}{host}{f':{url.port}' if url.port else ''}"
