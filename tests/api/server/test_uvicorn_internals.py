"""The undocumented parts of uvicorn that api.server uses: an upgrade that changes them fails here first."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httptools
import pytest
import uvicorn
from uvicorn.lifespan.off import LifespanOff
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

HINT = "uvicorn has changed: review api/server/connections/ and api/server/process.py"


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def make_protocol() -> HttpToolsProtocol:
    config = uvicorn.Config(lambda: None, loop="none")
    config.load()
    return HttpToolsProtocol(config, ServerState(), {}, _loop=SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("__init__", ["self", "config", "server_state", "app_state", "_loop"]),
        ("connection_made", ["self", "transport"]),
        ("connection_lost", ["self", "exc"]),
        ("data_received", ["self", "data"]),
        ("on_message_begin", ["self"]),
        ("on_url", ["self", "url"]),
        ("on_header", ["self", "name", "value"]),
        ("on_headers_complete", ["self"]),
        ("on_body", ["self", "body"]),
        ("on_message_complete", ["self"]),
        ("on_response_complete", ["self"]),
        ("pause_writing", ["self"]),
        ("resume_writing", ["self"]),
        ("timeout_keep_alive_handler", ["self"]),
        ("shutdown", ["self"]),
        ("_unset_keepalive_if_required", ["self"]),
    ],
)
def test_protocol_methods(name: str, expected: list[str]) -> None:
    """HttpToolsProtocol has the methods that BoundedProtocol overrides or calls, with the same parameters."""
    assert parameters(getattr(HttpToolsProtocol, name)) == expected, HINT


def test_protocol_state() -> None:
    """A new HttpToolsProtocol has the attributes that BoundedProtocol reads, in the expected initial state."""
    protocol = make_protocol()
    assert isinstance(protocol.parser, httptools.HttpRequestParser), HINT
    assert callable(protocol.parser.should_upgrade), HINT
    assert protocol.cycle is None, HINT
    assert len(protocol.pipeline) == 0, HINT
    assert protocol.headers is None or protocol.headers == [], HINT
    for name in ("client", "flow", "loop", "scope", "timeout_keep_alive", "timeout_keep_alive_task", "transport"):
        assert hasattr(protocol, name), f"HttpToolsProtocol.{name} is missing. {HINT}"


def test_flow_control() -> None:
    """FlowControl has an attribute for whether writing is paused."""
    flow = FlowControl(SimpleNamespace(pause_reading=lambda: None))  # type: ignore[arg-type]
    assert flow.write_paused is False, HINT


def test_cycle_state() -> None:
    """RequestResponseCycle has the attributes that BoundedProtocol reads or sets."""
    source = inspect.getsource(RequestResponseCycle.__init__)
    names = "body", "disconnected", "message_event", "more_body", "response_complete", "response_started", "scope"
    for name in names:
        assert f"self.{name} =" in source, f"RequestResponseCycle.{name} is missing. {HINT}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("startup", ["self", "sockets"]), ("shutdown", ["self", "sockets"]), ("handle_exit", ["self", "sig", "frame"])],
)
def test_server_methods(name: str, expected: list[str]) -> None:
    """uvicorn.Server has the methods that GatewayServer overrides, with the same parameters."""
    assert parameters(getattr(uvicorn.Server, name)) == expected, HINT


def test_server_state() -> None:
    """uvicorn.Server and its configuration have the attributes that GatewayServer reads or sets."""
    config = uvicorn.Config(lambda: None)
    config.load()
    server = uvicorn.Server(config)
    assert (server.force_exit, server.should_exit) == (False, False), HINT
    assert isinstance(server.server_state, ServerState), HINT
    assert inspect.isclass(config.lifespan_class), HINT
    assert "self.servers" in inspect.getsource(uvicorn.Server), HINT


def test_lifespan_interface() -> None:
    """A lifespan class has the two coroutines and the state that GatewayServer's own lifespan replaces."""
    lifespan = LifespanOff(uvicorn.Config(lambda: None))
    assert inspect.iscoroutinefunction(lifespan.startup), HINT
    assert inspect.iscoroutinefunction(lifespan.shutdown), HINT
    assert (lifespan.should_exit, lifespan.state) == (False, {}), HINT
