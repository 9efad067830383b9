"""Sending the log to an HTTP receiver, including one that fails, hangs or restarts."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, ClassVar

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from monitoring.logs.formats import LogFormat
from monitoring.logs.line_queue import QueueLimits
from monitoring.logs.sender import LogSender, Receiver
from tests.monitoring.logs.receiver import LogReceiver, running_receiver
from tests.monitoring.logs.sink import Sink
from tests.support.logs import configure_test_logging
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port

LIMITS = QueueLimits(lines=100, bytes=20_000, batch_lines=10, batch_bytes=10_000, pause_s=0.01)
QUICK = (0.01,) * 4


class Sending:
    """A sender, and the dropped lines that it reports."""

    opened: ClassVar[list[Sending]] = []

    def __init__(self, receiver: LogReceiver, **changes: object) -> None:
        self.dropped = 0
        self.reported: list[int] = []
        options = {"limits": LIMITS, "retry_delays_s": QUICK, "timeout_s": PATIENCE_S, **changes}
        headers = {"DD-API-KEY": "hush"}
        self.sender = LogSender(Receiver(receiver.url, headers), self.reported.append, self._count, **options)  # type: ignore[arg-type]
        self.opened.append(self)

    def _count(self, lines: int) -> None:
        self.dropped += lines

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.sender.put(b'{"number": %d}\n' % number)


@pytest.fixture
def receiver() -> Iterator[LogReceiver]:
    """A receiver; at the end the senders are drained, so that they log nothing during other tests."""
    Sending.opened.clear()
    with running_receiver(LogReceiver()) as receiver:
        yield receiver
        receiver.status = 202
        receiver.released.set()
        assert all(sending.sender.drain(PATIENCE_S) for sending in Sending.opened)


def numbers(receiver: LogReceiver) -> list[int]:
    return [line["number"] for line in receiver.accepted]


def test_lines_arrive_once_in_order_and_in_batches(receiver: LogReceiver) -> None:
    """Lines arrive in order as JSON arrays of bounded size, compressed, with the configured headers."""
    receiver.released.clear()
    sending = Sending(receiver)
    sending.put(*range(51))
    wait_until(lambda: receiver.requests)
    receiver.released.set()
    wait_until(lambda: len(receiver.accepted) == 51)
    assert numbers(receiver) == list(range(51))
    assert max(receiver.batches) == 10
    headers = receiver.requests[0]
    assert (headers["content-type"], headers["content-encoding"]) == ("application/json", "gzip")
    assert headers["dd-api-key"] == "hush"
    assert sending.dropped == 0


def test_the_thread_creates_no_tls_context(receiver: LogReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients share a context that is created before the thread starts: otherwise, httpx creates one for each.

    The child of a fork during the creation would inherit locks of OpenSSL that no thread of it releases.
    """
    contexts, create = list[object](), httpx.Client

    def make_client(**options: Any) -> httpx.Client:
        contexts.append(options["verify"])
        return create(**options)

    monkeypatch.setattr(httpx, "Client", make_client)
    Sending(receiver).put(1)
    wait_until(lambda: receiver.accepted)
    assert isinstance(contexts[0], ssl.SSLContext)
    assert contexts == [contexts[0]] * 2


def test_nothing_is_sent_without_lines(receiver: LogReceiver) -> None:
    """No connection is made before the first line, and none stays open after the last."""
    sending = Sending(receiver)
    assert receiver.connections == 0
    sending.put(1)
    assert sending.sender.drain(PATIENCE_S)
    assert (receiver.connections, receiver.requests[0]["connection"]) == (1, "close")


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_failing_receiver_gets_the_lines_again(receiver: LogReceiver, status: int) -> None:
    """Lines that the receiver cannot take yet are sent again until it accepts them, in order and once each."""
    receiver.status = status
    sending = Sending(receiver, retry_delays_s=(0.01,) * 10_000)
    sending.put(*range(25))
    wait_until(lambda: len(receiver.requests) >= 3)
    assert receiver.accepted == []
    receiver.status = 200
    wait_until(lambda: len(receiver.accepted) == 25)
    assert numbers(receiver) == list(range(25))
    assert sending.dropped == 0


@pytest.mark.parametrize("status", [400, 403, 404, 413, 302])
def test_rejected_lines_are_dropped_at_once(receiver: LogReceiver, status: int) -> None:
    """Lines that the receiver rejects permanently are counted as dropped after one attempt."""
    receiver.status = status
    sending = Sending(receiver)
    sending.put(1)
    wait_until(lambda: sending.dropped == 1)
    assert len(receiver.requests) == 1


def test_attempts_are_bounded(receiver: LogReceiver) -> None:
    """A batch that fails too often is dropped, and the next one is sent."""
    receiver.status = 500
    sending = Sending(receiver)
    sending.put(1)
    wait_until(lambda: sending.dropped == 1)
    assert len(receiver.requests) == 1 + len(QUICK)
    receiver.status = 200
    sending.put(2)
    wait_until(lambda: numbers(receiver) == [2])


def test_a_hung_receiver_costs_lines_instead_of_time(receiver: LogReceiver) -> None:
    """While the receiver hangs, lines are queued up to the limit, later ones are dropped, and no caller waits."""
    receiver.released.clear()
    sending = Sending(receiver)
    sending.put(0)
    wait_until(lambda: receiver.requests)
    sending.put(*range(1, 1000))
    assert sending.dropped == 999 - LIMITS.lines
    receiver.released.set()
    wait_until(lambda: len(receiver.accepted) == 1 + LIMITS.lines)
    wait_until(lambda: sending.reported == [999 - LIMITS.lines])
    sending.put(2000)
    wait_until(lambda: numbers(receiver)[-1] == 2000)


def test_a_receiver_that_takes_too_long_is_tried_again(receiver: LogReceiver) -> None:
    """A request that gets no response in time fails, and its lines are sent again."""
    receiver.released.clear()
    sending = Sending(receiver, timeout_s=0.2, retry_delays_s=(0.01,) * 100)
    sending.put(1)
    wait_until(lambda: len(receiver.requests) >= 2)
    receiver.released.set()
    wait_until(lambda: numbers(receiver))
    assert sending.dropped == 0


def test_a_receiver_may_go_and_come_back() -> None:
    """Lines are queued while the receiver is down, at first or later, and arrive once it is up."""
    receiver = LogReceiver(port=free_port())
    sending = Sending(receiver, retry_delays_s=(0.05,) * 10_000)
    sending.put(1)
    with ExitStack() as stack:
        stack.enter_context(running_receiver(receiver))
        wait_until(lambda: numbers(receiver) == [1])
    sending.put(2, 3)
    with running_receiver(receiver):
        wait_until(lambda: numbers(receiver) == [1, 2, 3])
        assert sending.dropped == 0
        assert sending.sender.drain(PATIENCE_S)


def test_a_host_that_is_no_name_is_reported() -> None:
    """Lines for a host that IDNA cannot encode are dropped and counted, and the failure is logged."""
    dropped = list[int]()
    receiver = Receiver("http://a..b", {})
    sender = LogSender(receiver, dropped.append, dropped.append, limits=LIMITS, retry_delays_s=QUICK)
    with capture_logs() as logs:
        sender.put(b"{}\n")
        wait_until(lambda: dropped)
    assert [(line["event"], line["reason"]) for line in logs] == [("log_receiver_failing", "UnicodeError")]
    assert sender.drain(PATIENCE_S)


def test_the_end_of_a_process_waits_for_the_lines_but_not_for_ever(receiver: LogReceiver) -> None:
    """Draining sends queued lines without pauses, and gives up at its time limit if the receiver hangs."""
    slow = QueueLimits(lines=1000, bytes=100_000, batch_lines=10, pause_s=PATIENCE_S * 10)
    sending = Sending(receiver, limits=slow)
    sending.put(*range(25))
    assert sending.sender.drain(PATIENCE_S)
    assert numbers(receiver) == list(range(25))
    receiver.released.clear()
    sending.put(26)
    assert not sending.sender.drain(0.1)


def test_draining_does_not_wait_for_a_receiver_that_fails(receiver: LogReceiver) -> None:
    """Draining tries a failing receiver once more and then drops the lines, without waiting for the next attempt."""
    receiver.status = 500
    receiver.released.clear()
    sending = Sending(receiver, retry_delays_s=(PATIENCE_S * 10,))
    sending.put(1)
    wait_until(lambda: receiver.requests)
    sending.sender.start_draining()
    receiver.released.set()
    assert sending.sender.drain(PATIENCE_S)
    assert (len(receiver.requests), sending.dropped) == (2, 1)


@pytest.fixture
def log_to(sink: Sink) -> Callable[[LogReceiver], None]:
    """Return a function that configures the log to be sent to a receiver too."""

    def configure(receiver: LogReceiver) -> None:
        configure_test_logging("info", sink, queues=[Sending(receiver).sender])

    return configure


def test_lines_are_sent_as_json_whatever_the_form_of_the_stream(sink: Sink, receiver: LogReceiver) -> None:
    """The receiver gets JSON even when standard output has the console format."""
    configure_test_logging("info", sink, log_format=LogFormat.CONSOLE, queues=[Sending(receiver).sender])
    structlog.get_logger("atalaya.test").info("model_loaded", password="hush")
    wait_until(lambda: receiver.accepted)
    assert "INFO    model loaded  password=[redacted]" in sink.getvalue()
    assert receiver.accepted[0]["event.name"] == "model_loaded"
    assert b"hush" not in receiver.bodies[0]


def test_the_log_says_once_that_the_receiver_fails(
    sink: Sink, receiver: LogReceiver, log_to: Callable[[LogReceiver], None]
) -> None:
    """A receiver that rejects every line causes only one line about that, and another once it accepts lines again."""
    receiver.status = 403
    log_to(receiver)
    log = structlog.get_logger("atalaya.test")
    log.info("first")
    wait_until(lambda: len(receiver.requests) == 2)  # the line, and the one that reports the failure
    log.info("second")
    wait_until(lambda: len(receiver.requests) == 3)
    receiver.status = 200
    log.info("third")
    wait_until(lambda: "log_receiver_restored" in receiver.events())
    events = [line["event.name"] for line in sink.lines()]
    assert events == ["first", "log_receiver_failing", "second", "third", "log_receiver_restored"]
    failing = sink.lines()[1]
    assert (failing["level"], failing["reason"]) == ("warning", "HTTP 403")
    assert json.dumps(sink.lines()).count(str(receiver.port)) == 0
