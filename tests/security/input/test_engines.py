"""What a gateway accepts from inference engines, and from whom: T66."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.backends.oip import connections
from model.backends.oip.connections import PLAIN, Transport
from model.backends.oip.errors import EngineFailed, EngineUnavailable
from tests.model.backends.oip.scripted_engine import SIDES, ScriptedEngine, connected
from tests.support.certificates import Authority, make_authority
from tests.support.servers.running import running

GREY = np.full((1, *SIDES), 90, np.uint8)
OUTPUT = '{"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1, 3], "data": %s}]}'


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with running(ScriptedEngine()) as engine:
        yield engine


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "ca")


@pytest.fixture
def tls_engine(authority: Authority) -> Iterator[ScriptedEngine]:
    """An engine that talks only to clients with a certificate of the authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.path))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*authority.issue("CN=engine"))
    server = ScriptedEngine()
    # The handshake is left to the thread of the connection.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with running(server) as engine:
        yield engine


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"outputs": []}',
        b'{"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.5]}]}',
        b'{"outputs": [{"name": "probabilities", "datatype": "FP64", "shape": [1, 3], "data": [1, 0, 0]}]}',
        b'{"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1, 3], "data": [1, 0]}]}',
        b'{"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1, 3], '
        b'"parameters": {"binary_data_size": 12}}]}',
        b"[" * 100_000,
        (OUTPUT % "[NaN, 0.5, 0.5]").encode(),
        (OUTPUT % "[Infinity, 0, 0]").encode(),
        (OUTPUT % "[1.5, -0.5, 0]").encode(),
        (OUTPUT % "[0.9, 0.9, 0.9]").encode(),
        (OUTPUT % "[0, 0, 0]").encode(),
    ],
)
def test_a_response_without_probabilities_is_an_error(engine: ScriptedEngine, body: bytes) -> None:
    """Whatever is not one row of finite numbers that add up to 1, for each image, is refused as engine_failed."""
    with connected(engine) as backend:
        engine.script.body = body
        with pytest.raises(EngineFailed):
            backend.predict(GREY)


def test_a_response_without_an_end_is_an_error(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway reads no more of a response than its limit."""
    monkeypatch.setattr(connections, "_MAX_RESPONSE_BYTES", 1 << 20)
    with connected(engine) as backend:
        engine.script.body = b" " * (3 << 20)
        with pytest.raises(EngineFailed) as caught:
            backend.predict(GREY)
    assert "too long" in caught.value.detail


def test_both_sides_are_authenticated(tls_engine: ScriptedEngine, authority: Authority) -> None:
    """With a certificate of its own, and the CA of the engine's, the gateway gets predictions."""
    with connected(tls_engine, transport=Transport(authority.ssl_context(authority.issue("CN=gateway")))) as backend:
        assert backend.predict(GREY).shape == (1, 3)


def test_a_gateway_without_a_certificate_gets_nothing(tls_engine: ScriptedEngine, authority: Authority) -> None:
    """An engine that asks for certificates has no plain or anonymous way in."""
    for transport in (Transport(authority.ssl_context()), PLAIN):
        with pytest.raises(EngineUnavailable), connected(tls_engine, transport=transport):
            pass


def test_an_engine_with_a_foreign_certificate_gets_no_image(
    tls_engine: ScriptedEngine, authority: Authority, tmp_path: Path
) -> None:
    """The gateway sends nothing to an engine whose certificate is of another authority."""
    context = make_authority(tmp_path / "other").ssl_context(authority.issue("CN=gateway"))
    with pytest.raises(EngineUnavailable), connected(tls_engine, transport=Transport(context)):
        pass
    assert tls_engine.script.paths == []
