"""Which engines get requests: those that can be resolved and pass their checks, by their requests in flight."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any

import pytest

from model.backends.oip import checks
from model.backends.oip.address import Host
from model.backends.oip.connections import PLAIN, Connections
from model.backends.oip.endpoints import FIRST_BACKOFF_S, Endpoint, Endpoints
from model.backends.oip.events import EngineEvent, EventKind
from model.backends.oip.metadata import EngineModel
from tests.model.backends.oip.scripted_engine import ScriptedEngine, connected, describe_model
from tests.model.backends.oip.test_failures import count_predictions, predict
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import refusing_port

MODEL = EngineModel("image", "UINT8", frozenset({"probabilities"}), None, binary=True, takes_timeout=False, digest=None)


def make_endpoint(label: str) -> Endpoint:
    return Endpoint(label, Host("localhost", 9), Connections("localhost", 9, "127.0.0.1", PLAIN))


def test_equal_engines_share_the_load_evenly(engine: ScriptedEngine, other: ScriptedEngine) -> None:
    """Two engines get requests in turn, but one with fewer requests in flight gets the next ones."""
    engines = (engine, other)
    with connected(*engines) as backend, ThreadPoolExecutor(16) as threads:
        for _ in range(10):
            predict(backend)
        assert [count_predictions(each) for each in engines] == [5, 5]
        with engine.script.silent, other.script.silent:
            waiting = [threads.submit(predict, backend) for _ in range(16)]
            wait_until(lambda: sum(map(count_predictions, engines)) == 26)
            assert [count_predictions(each) for each in engines] == [13, 13]
        wait(waiting)
        with engine.script.silent:
            waiting = [threads.submit(predict, backend) for _ in range(2)]
            wait_until(lambda: count_predictions(engine) == 14 and any(each.done() for each in waiting))
            for _ in range(4):
                predict(backend)
        assert [count_predictions(each) for each in engines] == [14, 18]


def test_responses_with_connection_close_are_complete(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Responses of an engine that closes each connection are complete, even if `read1` closes the socket at the end."""
    read1 = http.client.HTTPResponse.read1

    def read1_and_close(response: http.client.HTTPResponse, size: int = -1) -> bytes:
        part = read1(response, size)
        if response.length == 0:
            response.close()  # as Python does since 3.12.2
        return part

    monkeypatch.setattr(http.client.HTTPResponse, "read1", read1_and_close)
    engine.script.closes = True
    with connected(engine) as backend:
        assert [predict(backend) for _ in range(3)] == [[1.0, 0.0, 0.0]] * 3


def test_a_name_without_addresses_does_not_disable_the_others(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine whose name cannot be resolved is reported as ejected, but stays in use if it was resolved before."""
    addresses = {"127.0.0.1": "127.0.0.1", "known": "127.0.0.1"}
    unresolved = list[str]()
    resolve = socket.getaddrinfo

    def look_up(name: str, *arguments: Any, **options: Any) -> Any:
        if name not in addresses:
            unresolved.append(name)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(addresses[name], *arguments, **options)

    monkeypatch.setattr(checks, "RESOLVE_INTERVAL_S", 0)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    hosts = [f"{name}:{engine.server_address[1]}" for name in ("unknown", "known")]
    with connected(hosts=hosts) as backend:
        assert predict(backend) == [1.0, 0.0, 0.0]
        events = list[EngineEvent]()
        backend.subscribe(events.append)
        (ejected,) = [event for event in events if event.kind is EventKind.EJECTED]
        assert (ejected.endpoint, ejected.detail) == (hosts[0], "its name cannot be resolved")
        del addresses["known"]
        wait_until(lambda: unresolved.count("known") >= 2)
        assert predict(backend) == [1.0, 0.0, 0.0]
        assert EventKind.REMOVED not in {event.kind for event in events}
        addresses["unknown"] = "127.0.0.1"
        wait_until(lambda: hosts[0] in [event.endpoint for event in events if event.kind is EventKind.REMOVED])


def test_an_engine_that_is_down_at_the_start_is_reported(engine: ScriptedEngine) -> None:
    """A subscriber that joins after the start receives the ejection of an engine that is down, with the reason."""
    with refusing_port() as port, connected(engine, hosts=[f"127.0.0.1:{port}"]) as backend:
        events = list[EngineEvent]()
        backend.subscribe(events.append)
    reported = {event.endpoint: (event.kind, event.detail) for event in events}
    assert reported[f"127.0.0.1:{port}"] == (EventKind.EJECTED, "it cannot be reached")
    assert reported[engine.endpoint][0] is EventKind.ADMITTED


def test_an_engine_with_another_model_does_not_end_the_start(engine: ScriptedEngine, other: ScriptedEngine) -> None:
    """If another engine works, one with another model does not fail the start, but gets no requests."""
    other.script.model = describe_model(inputs=[])
    with connected(other, engine) as backend:
        for _ in range(2):
            predict(backend)
    assert not any(path.endswith("/infer") for path in other.script.paths)


def test_silent_engines_are_checked_at_the_same_time(engine: ScriptedEngine) -> None:
    """Four silent engines are checked in parallel: each of them is connected before the check of any has ended."""
    with ThreadPoolExecutor(1) as thread, ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        started = thread.submit(start, engine, [f"127.0.0.1:{each.getsockname()[1]}" for each in listeners])
        for listener in listeners:
            listener.settimeout(PATIENCE_S)
            stack.enter_context(listener.accept()[0])
        assert not started.done()
    assert started.result()


def start(engine: ScriptedEngine, hosts: list[str]) -> bool:
    """Connect to an engine and to those at `hosts`; returns whether one of them predicts."""
    with connected(engine, hosts=hosts) as backend:
        return predict(backend) == [1.0, 0.0, 0.0]


def test_an_engine_that_fails_again_is_ejected_for_longer() -> None:
    """A passed check does not shorten the time until the next check after another ejection."""
    endpoints, endpoint = Endpoints(1, keeps_last=False), make_endpoint("10.0.0.1:80")
    endpoints.replace([endpoint])
    for ejections in range(3):
        endpoints.admit(endpoint, MODEL)
        before = time.monotonic()
        endpoints.eject(endpoint, "status 500")
        assert endpoint.check_at >= before + FIRST_BACKOFF_S * 2**ejections


def test_a_removed_endpoint_is_no_longer_reported() -> None:
    """An ejection or admission that comes after the removal of the endpoint is not reported."""
    endpoints, endpoint = Endpoints(1, keeps_last=True), make_endpoint("10.0.0.1:80")
    endpoints.replace([endpoint])
    assert endpoints.admit(endpoint, MODEL)
    assert not endpoints.admit(endpoint, MODEL)
    endpoints.replace([])
    assert not endpoints.eject(endpoint, "the connection failed")
    assert not endpoints.admit(endpoint, MODEL)


def test_names_that_are_resolved_during_close_cause_no_connection(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the back end is closed while host names are resolved, it opens no more connections."""
    resolve, closed = socket.getaddrinfo, threading.Event()

    def close_and_resolve(*arguments: Any, **options: Any) -> Any:
        backend.close()
        closed.set()
        return resolve(*arguments, **options)

    with connected(engine) as backend:
        (checks_thread,) = (thread for thread in threading.enumerate() if thread.name == "engine_checks")
        before = set(engine.script.connections)
        monkeypatch.setattr(checks, "RESOLVE_INTERVAL_S", 0.0)
        monkeypatch.setattr(socket, "getaddrinfo", close_and_resolve)
        checks_thread.join(PATIENCE_S)
        assert closed.is_set()
        assert not checks_thread.is_alive()
    assert engine.script.connections == before
