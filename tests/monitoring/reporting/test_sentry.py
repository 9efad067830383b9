"""Reporting errors to Sentry: what is sent, what is not, and that reporting never fails."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from monitoring.reporting.sentry import (
    CLOSE_LIMIT_S,
    MAX_REPORTS_PER_MINUTE,
    NullReporter,
    name_release,
    open_reporter,
    scrub_event,
)
from tests.monitoring.jwts import make_jwt
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import refusing_port
from tests.support.servers.sentry import Sink, running_sink


@pytest.fixture
def sink() -> Iterator[Sink]:
    with running_sink() as server:
        yield server


def log_in(typed: str) -> None:
    """Raise an error with a secret in a local variable and in the message of its cause."""
    again = typed
    try:
        raise LookupError("no user for client_secret=" + again)
    except LookupError as cause:
        raise PermissionError("refused") from cause


def failure(token: str, typed: str) -> RuntimeError:
    """Build an error whose stack, context and cause contain secrets."""
    try:
        try:
            log_in(typed)
        except PermissionError:
            raise RuntimeError(f"cannot verify {token}")  # noqa: B904  an implicit context on purpose
    except RuntimeError as error:
        return error
    raise AssertionError


def test_an_error_is_sent_with_its_context(sink: Sink) -> None:
    """An error is sent with its chain, stack, tags, environment and release."""
    reporter = open_reporter(sink.dsn, environment="staging", release="atalaya@0.1.0")
    reporter.capture(failure(make_jwt(), secrets.token_urlsafe(12)), {"request_id": "r-1", "route": "/v1/predictions"})
    wait_until(sink.events)
    reporter.close()
    (event,) = sink.events()
    chain = event["exception"]["values"]
    assert [entry["type"] for entry in chain] == ["LookupError", "PermissionError", "RuntimeError"]
    assert [frame["function"] for frame in chain[1]["stacktrace"]["frames"]] == ["failure", "log_in"]
    assert event["tags"] == {"request_id": "r-1", "route": "/v1/predictions"}
    assert (event["environment"], event["release"], event["level"]) == ("staging", "atalaya@0.1.0", "error")


def test_no_secrets_are_sent(sink: Sink) -> None:
    """Credentials in messages, local variables, causes and tags are not sent, nor details of the host or request."""
    token, typed = make_jwt(), secrets.token_urlsafe(12)
    reporter = open_reporter(sink.dsn, environment="production", release="1")
    reporter.capture(failure(token, typed), {"route": "/auth/token", "password": typed, "note": f"Bearer {token}"})
    wait_until(sink.events)
    reporter.close()
    (event,) = sink.events()
    sent = b"".join(sink.envelopes).decode()
    assert typed not in sent
    assert not any(part in sent for part in token.split("."))
    assert not any("vars" in frame for entry in event["exception"]["values"] for frame in entry["stacktrace"]["frames"])
    assert event.keys() == {
        "event_id", "timestamp", "level", "platform", "exception", "tags", "environment", "release", "sdk"
    }  # fmt: skip


def test_exception_groups(sink: Sink) -> None:
    """The members of an exception group are sent, redacted like any other error."""
    token = make_jwt()
    reporter = open_reporter(sink.dsn, environment="production", release="1")
    reporter.capture(ExceptionGroup("two failed", [ValueError(token), KeyError("x")]), {})
    wait_until(sink.events)
    reporter.close()
    (event,) = sink.events()
    assert {entry["type"] for entry in event["exception"]["values"]} == {"ExceptionGroup", "ValueError", "KeyError"}
    assert token not in json.dumps(event)


def test_two_reporters_are_independent(sink: Sink) -> None:
    """Two gateways in one process each report to their own project, and there is no process-wide client."""
    import sentry_sdk

    with running_sink() as silent:
        first = open_reporter(sink.dsn, environment="one", release="1")
        second = open_reporter(silent.dsn, environment="two", release="2")
        first.capture(ValueError("mine"), {})
        wait_until(sink.events)
        first.close()
        second.close()
        assert silent.envelopes == []
    assert [event["environment"] for event in sink.events()] == ["one"]
    assert not sentry_sdk.get_client().is_active()


@pytest.mark.parametrize("dsn", [None, ""])
def test_without_a_dsn(dsn: str | None) -> None:
    """Without a DSN errors are not reported."""
    reporter = open_reporter(dsn, environment="production", release="1")
    assert isinstance(reporter, NullReporter)
    reporter.capture(ValueError("lost"), {})
    reporter.close()


def test_sdk_is_not_imported_without_a_dsn() -> None:
    """sentry_sdk is imported only with a DSN."""
    program = (
        "import sys; from monitoring.reporting.sentry import open_reporter\n"
        "reporter = open_reporter(sys.argv[1] or None, environment='e', release='r')\n"
        "reporter.capture(ValueError('x'), {}) if not sys.argv[1] else None\n"
        "reporter.close(); print('sentry_sdk' in sys.modules)"
    )
    dsns = ("", "http://publickey@127.0.0.1:9/7")
    assert [
        subprocess.run([sys.executable, "-c", program, dsn], capture_output=True, text=True, check=True).stdout.strip()
        for dsn in dsns
    ] == ["False", "True"]


def test_malformed_dsn() -> None:
    """A malformed DSN raises ValueError when the reporter is opened."""
    with pytest.raises(ValueError, match="scheme"):
        open_reporter("not a dsn", environment="production", release="1")


def test_an_unreachable_server_does_not_block() -> None:
    """With an unreachable server reporting does not raise; another thread tries to send, and counts the failures."""
    threads: list[int] = []
    with refusing_port() as port:
        reporter = open_reporter(
            f"http://publickey@127.0.0.1:{port}/7",
            environment="production",
            release="1",
            on_dropped=lambda: threads.append(threading.get_ident()),
        )
        for _ in range(20):
            reporter.capture(ValueError("x"), {})
        wait_until(lambda: len(threads) == 20)
        reporter.close()
    assert threading.get_ident() not in threads


def test_a_hanging_server_delays_closing_for_a_limited_time() -> None:
    """Closing waits for a server that never responds, but not longer than CLOSE_LIMIT_S, even if asked to."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        reporter = open_reporter(
            f"http://publickey@127.0.0.1:{mute.getsockname()[1]}/7", environment="production", release="1"
        )
        reporter.capture(ValueError("x"), {})
        started = time.monotonic()
        reporter.close(PATIENCE_S)
        assert time.monotonic() - started > CLOSE_LIMIT_S / 2
        connection, _ = mute.accept()
    with connection:
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):  # the report is still being sent: its own time limit has not ended it
            list(iter(lambda: connection.recv(65_536), b""))


def test_principal_is_a_pseudonym(sink: Sink) -> None:
    """The principal that caused an error is sent as a pseudonym, the same one for each error, and never by its name."""
    reporter = open_reporter(sink.dsn, environment="production", release="1")
    for principal in ("ana@example.org", "ana@example.org", "olga@example.org"):
        reporter.capture(ValueError("x"), {}, principal)
    wait_until(lambda: len(sink.events()) == 3)
    reporter.close()
    users = [event["user"] for event in sink.events()]
    assert users[0] == users[1] != users[2]
    assert all(user.keys() == {"id"} and len(user["id"]) == 16 for user in users)
    assert b"example.org" not in b"".join(sink.envelopes)


def test_reports_are_capped(sink: Sink) -> None:
    """At most `MAX_REPORTS_PER_MINUTE` errors are sent per minute; the others are dropped and counted."""
    dropped: list[None] = []
    reporter = open_reporter(sink.dsn, environment="production", release="1", on_dropped=lambda: dropped.append(None))
    for _ in range(2 * MAX_REPORTS_PER_MINUTE + 5):
        reporter.capture(ValueError("x"), {})
    wait_until(lambda: len(sink.events()) + len(dropped) == 2 * MAX_REPORTS_PER_MINUTE + 5)
    reporter.close()
    assert MAX_REPORTS_PER_MINUTE <= len(sink.events()) <= 2 * MAX_REPORTS_PER_MINUTE  # a minute may begin meanwhile
    assert len(sink.events()) + len(dropped) == 2 * MAX_REPORTS_PER_MINUTE + 5


def test_share_of_errors(sink: Sink) -> None:
    """With a share of 0 no error is reported."""
    reporter = open_reporter(sink.dsn, environment="production", release="1", share=0.0)
    reporter.capture(ValueError("x"), {})
    reporter.close()
    assert sink.envelopes == []


@pytest.mark.parametrize(
    ("commit", "release"),
    [(None, "atalaya@1.2.0"), ("", "atalaya@1.2.0"), ("a" * 40, "atalaya@1.2.0+aaaaaaaaaaaa")],
)
def test_release(commit: str | None, release: str) -> None:
    """A release is named by its version, and by its commit if that is known."""
    assert name_release("1.2.0", commit) == release


def test_no_part_of_an_event_carries_a_secret() -> None:
    """Every part of an event or transaction that contains a secret is masked or left out."""
    secret = "wo" + secrets.token_urlsafe(18)
    pair, header = f"password={secret}", {"Authorization": f"Bearer {secret}", "Cookie": f"session={secret}"}
    frame = {"function": "f", "vars": {"password": secret, "x": pair}, "context_line": f"log_in({pair!r})"}
    stack = {"frames": [frame]}
    event: Any = {
        "event_id": "1",
        "message": pair,
        "logentry": {"message": "%s", "params": [pair], "formatted": pair},
        "exception": {"values": [{"type": "E", "value": pair, "stacktrace": stack, "mechanism": {"data": header}}]},
        "threads": {"values": [{"stacktrace": stack}]},
        "request": {"url": f"http://h/?token={secret}", "headers": header, "cookies": pair, "data": pair, "env": pair},
        "user": {"id": "p", "email": secret, "ip_address": secret, "username": secret, "data": header},
        "tags": {"token": secret, "note": f"Bearer {secret}"},
        "extra": {"anything": secret, "deep": {"er": [pair]}},
        "contexts": {"trace": {"data": header}, "state": {"value": secret}},
        "breadcrumbs": {"values": [{"message": pair, "data": header}]},
        "spans": [{"description": pair, "data": header}],
        "transaction": f"/x?{pair}",
        "server_name": secret,
        "modules": {"m": secret},
        "fingerprint": [secret],
        "attachments": [secret],
        "measurements": {"m": secret},
        "_meta": {"x": secret},
    }  # fmt: skip
    for kind in ("event", "transaction"):
        scrubbed = scrub_event(event | {"type": kind}, {})
        assert secret not in json.dumps(scrubbed)
        assert scrubbed["user"] == {"id": "p"}


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("closed", [False, True])
def test_capture_never_raises(sink: Sink, closed: bool) -> None:
    """Reporting an error that cannot be printed, or reporting after closing, raises nothing."""
    reporter = open_reporter(sink.dsn, environment="production", release="1")
    if closed:
        reporter.close()
    reporter.capture(UnprintableError(), {"route": "/"})
    reporter.close()
    reporter.close()
