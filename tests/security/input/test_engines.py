"""Which responses a gateway accepts from inference engines, and from which engines: T66."""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.backends.oip import connections
from model.backends.oip.connections import PLAIN, Transport
from model.backends.oip.errors import EngineFailed, EngineUnavailable
from model.backends.oip.events import EngineEvent, EventKind
from model.explanation.head import DenseLayer, Head
from tests.model.backends.oip.scripted_engine import SIDES, ScriptedEngine, connected, describe_model
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
    """An engine that accepts only clients with a certificate from the authority."""
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
    """A response without one row of finite probabilities that add up to 1 for each image raises EngineFailed."""
    with connected(engine) as backend:
        engine.script.body = body
        with pytest.raises(EngineFailed):
            backend.predict(GREY)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pooled", [1]),
        ("pooled", [1, 2]),
        ("pooled", [1, 3, 1]),
        ("features", [1, 2, 2, 2]),
        ("features", [1, 0, 2, 3]),
    ],
)
def test_features_of_other_lengths_are_an_error(engine: ScriptedEngine, name: str, shape: list[int]) -> None:
    """If the engine's metadata leave lengths open, features of other lengths than the model's raise EngineFailed."""
    head = Head((DenseLayer(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), relu=False),))
    outputs = [("probabilities", [-1, 3]), ("pooled", [-1, -1]), ("features", [-1, -1, -1, -1])]
    engine.script.model = describe_model(
        outputs=[{"name": output, "datatype": "FP32", "shape": sides} for output, sides in outputs]
    )
    document = json.loads(OUTPUT % "[1, 0, 0]")
    document["outputs"].append({"name": name, "datatype": "FP32", "shape": shape, "data": [0.5] * math.prod(shape)})
    engine.script.body = json.dumps(document).encode()
    with connected(engine, head=head) as backend:
        predict = backend.predict_pooled if name == "pooled" else backend.predict_with_features
        with pytest.raises(EngineFailed) as caught:
            predict(GREY)
    assert caught.value.detail == f"the output {name} has the shape {shape}"


def test_a_response_without_an_end_is_an_error(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response that exceeds the limit is rejected as too long, and counted as a failure of the engine."""
    monkeypatch.setattr(connections, "_MAX_RESPONSE_BYTES", 1 << 20)
    with connected(engine) as backend:
        events = list[EngineEvent]()
        backend.subscribe(events.append)
        engine.script.body = b" " * (3 << 20)
        with pytest.raises(EngineFailed) as caught:
            backend.predict(GREY)
        assert "too long" in caught.value.detail
        assert [event.kind for event in events].count(EventKind.FAILED) == 1


def test_both_sides_are_authenticated(tls_engine: ScriptedEngine, authority: Authority) -> None:
    """A gateway with its own certificate and the CA of the engine's certificate gets predictions."""
    with connected(tls_engine, transport=Transport(authority.ssl_context(authority.issue("CN=gateway")))) as backend:
        assert backend.predict(GREY).shape == (1, 3)


def test_a_gateway_without_a_certificate_gets_nothing(tls_engine: ScriptedEngine, authority: Authority) -> None:
    """An engine that requires client certificates rejects plain HTTP, and TLS without a certificate."""
    for transport in (Transport(authority.ssl_context()), PLAIN):
        with pytest.raises(EngineUnavailable), connected(tls_engine, transport=transport):
            pass


def test_an_engine_with_a_foreign_certificate_gets_no_image(
    tls_engine: ScriptedEngine, authority: Authority, tmp_path: Path
) -> None:
    """The gateway sends no request to an engine whose certificate is from another authority."""
    context = make_authority(tmp_path / "other").ssl_context(authority.issue("CN=gateway"))
    with pytest.raises(EngineUnavailable), connected(tls_engine, transport=Transport(context)):
        pass
    assert tls_engine.script.paths == []
