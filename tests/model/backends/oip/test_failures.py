"""Engines that fail, hang up, or serve another model."""

from __future__ import annotations

import os
import resource
import time
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from model.backends.call import calling
from model.backends.oip import connections, endpoints
from model.backends.oip.backend import OipBackend
from model.backends.oip.connections import Transport
from model.backends.oip.errors import EngineFailed, EngineMismatch, EngineUnavailable
from model.backends.oip.events import EngineEvent, EventKind
from model.errors import DeadlineExceeded
from tests.model.backends.oip.scripted_engine import RED, SIDES, Script, ScriptedEngine, connected, describe_model
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import refusing_port


def observe(backend: OipBackend) -> list[EngineEvent]:
    events = list[EngineEvent]()
    backend.subscribe(events.append)
    return events


def count_predictions(engine: ScriptedEngine) -> int:
    return sum(path.endswith("/infer") for path in engine.script.paths)


def predict(backend: OipBackend) -> list[float]:
    probabilities: list[float] = backend.predict(RED)[0].tolist()
    return probabilities


@pytest.mark.parametrize("failure", [{"status": 503}, {"hangs_up": True}])
def test_a_request_that_was_not_processed_goes_to_another_engine(
    engine: ScriptedEngine, other: ScriptedEngine, failure: dict[str, Any]
) -> None:
    """After a lost connection or a 503, the request goes to the other engine; if that fails too, the request fails."""
    with connected(engine, other) as backend:
        engine.script.status, engine.script.hangs_up = failure.get("status", 200), failure.get("hangs_up", False)
        engine.script.is_ready = False  # otherwise it would be used again after half a second
        assert [predict(backend) for _ in range(4)] == [[1.0, 0.0, 0.0]] * 4
        assert count_predictions(engine) in (1, 2)
        other.script.status, other.script.hangs_up = engine.script.status, engine.script.hangs_up
        before = count_predictions(engine) + count_predictions(other)
        with pytest.raises(EngineUnavailable):
            predict(backend)
        assert count_predictions(engine) + count_predictions(other) - before <= 2


@pytest.mark.parametrize("status", [400, 401, 404, 500, 502])
def test_a_request_that_was_processed_is_not_repeated(
    engine: ScriptedEngine, other: ScriptedEngine, status: int
) -> None:
    """Any other error status fails the request at once; the engine's message is for the log, not for the caller."""
    with connected(engine, other) as backend:
        events = observe(backend)
        engine.script.status = other.script.status = status
        with pytest.raises(EngineFailed) as caught:
            predict(backend)
        assert count_predictions(engine) + count_predictions(other) == 1
        assert (caught.value.detail, str(status) in str(caught.value)) == (f"status {status}: no", False)
        assert [event.detail for event in events if event.kind is EventKind.FAILED] == [f"status {status}: no"]


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 9, 9, 3]}]},
        {"inputs": [{"name": "image", "datatype": "INT64", "shape": [-1, *SIDES]}]},
        {"inputs": [{"name": "image", "datatype": "UINT8", "shape": SIDES}]},
        {"inputs": []},
        {"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 4]}]},
        {"outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}]},
        {"outputs": None},
    ],
)
def test_another_model_is_rejected(engine: ScriptedEngine, changes: dict[str, Any]) -> None:
    """Metadata that differs from the manifest fails the start with EngineMismatch."""
    engine.script.model = describe_model(**changes)
    with pytest.raises(EngineMismatch), connected(engine):
        pass


def test_another_version_is_rejected(engine: ScriptedEngine) -> None:
    """A version in the URL must be one that the engine serves, and is part of the path of predictions."""
    with pytest.raises(EngineMismatch, match="serves the versions 7 of tiny, not 8"), connected(engine, path="tiny/8"):
        pass
    with connected(engine, path="tiny/7") as backend:
        predict(backend)
    assert engine.script.paths[-1] == "/v2/models/tiny/versions/7/infer"


def test_an_engine_that_is_back_with_another_model_gets_no_requests(
    engine: ScriptedEngine, other: ScriptedEngine
) -> None:
    """An ejected engine that returns with another model stays ejected."""
    with connected(engine, other) as backend:
        events = observe(backend)
        engine.script.status, engine.script.model = 503, describe_model(inputs=[])
        for _ in range(2):
            predict(backend)
        checks = len(engine.script.paths)
        wait_until(lambda: len(engine.script.paths) >= checks + 3)
        engine.script.status = 200
        for _ in range(4):
            predict(backend)
        assert count_predictions(engine) == 1
        assert {event.endpoint for event in events if event.kind is EventKind.EJECTED} == {engine.endpoint}


def test_an_ejected_engine_is_used_again_after_a_check(engine: ScriptedEngine, other: ScriptedEngine) -> None:
    """An ejected engine gets requests again once it is ready."""
    with connected(engine, other) as backend:
        engine.script.status, engine.script.is_ready = 503, False
        for _ in range(4):
            predict(backend)
        assert count_predictions(engine) == 1
        engine.script.status, engine.script.is_ready = 200, True

        def is_used() -> bool:
            predict(backend)
            return count_predictions(engine) > 2

        wait_until(is_used)


def test_passed_checks_do_not_hide_failed_requests(
    engine: ScriptedEngine, other: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that passes its checks is ejected after three failed requests, and after each return by one more."""
    monkeypatch.setattr(endpoints, "CHECK_INTERVAL_S", 0.0)
    with connected(engine, other) as backend:
        events = observe(backend)
        engine.script.status = 500

        def count(kind: EventKind) -> int:
            return sum(event.kind is kind and event.endpoint == engine.endpoint for event in list(events))

        def fail_once() -> None:
            failed, checks = count(EventKind.FAILED), len(engine.script.paths)
            wait_until(lambda: len(engine.script.paths) >= checks + 6)  # three per check, so one check has passed
            while count(EventKind.FAILED) == failed:
                with suppress(EngineFailed):
                    predict(backend)

        for ejections in (0, 0, 1, 2):
            fail_once()
            assert count(EventKind.EJECTED) == ejections
        assert count_predictions(engine) == 4


def test_the_deadline_is_that_of_the_caller(engine: ScriptedEngine) -> None:
    """A Triton gets the caller's remaining time in microseconds; a request whose deadline has passed fails."""
    with connected(engine) as backend:
        with calling(time.monotonic() + PATIENCE_S):
            predict(backend)
        assert 1e6 < engine.script.requests[-1]["parameters"]["timeout"] <= PATIENCE_S * 1e6
        with calling(time.monotonic() - 1), pytest.raises(DeadlineExceeded):
            predict(backend)
    engine.script.server["name"] = "mlserver"
    with connected(engine) as backend:
        predict(backend)
    assert "parameters" not in engine.script.requests[-1]


def test_an_engine_without_binary_tensors_gets_json(engine: ScriptedEngine) -> None:
    """An engine without the extension for binary tensors gets JSON, with the input name and type of its model."""
    engine.script.server["extensions"] = []
    engine.script.model = describe_model(inputs=[{"name": "x", "datatype": "FP32", "shape": [-1, *SIDES]}])
    with connected(engine) as backend:
        assert predict(backend) == [1.0, 0.0, 0.0]
    (tensor,) = engine.script.requests[-1]["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["data"][:3]) == ("x", "FP32", [200.0, 0.0, 0.0])
    assert "Inference-Header-Content-Length" not in engine.script.headers[-1]


def test_the_token_is_sent_with_every_request_and_shown_nowhere(engine: ScriptedEngine) -> None:
    """Checks and predictions carry the bearer token; the `repr` of the settings does not contain it."""
    transport = Transport(token="s3cret-token")
    with connected(engine, transport=transport) as backend:
        predict(backend)
    assert {headers.get("Authorization") for headers in engine.script.headers} == {"Bearer s3cret-token"}
    assert "s3cret" not in repr(transport)


def test_connections_are_replaced(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection serves many requests, but not more than MAX_REQUESTS."""
    with connected(engine) as backend:
        for _ in range(5):
            predict(backend)
        assert len(engine.script.connections) == 1
        monkeypatch.setattr(connections, "MAX_REQUESTS", 2)
        for _ in range(5):
            predict(backend)
        assert len(engine.script.connections) == 4


def test_the_digest_is_that_of_the_metadata(engine: ScriptedEngine) -> None:
    """If the engine's metadata has a digest as a parameter of the model, the prediction carries that digest."""
    engine.script = Script(model=describe_model(parameters={"digest": "ab" * 32}))
    with connected(engine) as backend, calling(time.monotonic() + PATIENCE_S) as call:
        predict(backend)
    assert call.model is not None
    assert call.model.digest == "ab" * 32
    assert call.engine is not None
    assert (call.engine.version, call.engine.digest_source) == ("7", "metadata")


def test_a_start_without_engines_fails() -> None:
    """If no engine can be reached, the start fails with EngineUnavailable, which names the endpoint and the reason."""
    with (
        refusing_port() as port,
        pytest.raises(EngineUnavailable, match=f"127.0.0.1:{port}: it cannot be reached"),
        connected(hosts=[f"127.0.0.1:{port}"]),
    ):
        pass


def test_a_deadline_of_the_caller_is_no_error_of_the_engine(engine: ScriptedEngine) -> None:
    """Requests whose deadline has passed are not sent, and do not count as errors of the engine."""
    with connected(engine) as backend:
        before = count_predictions(engine)
        for _ in range(5):
            with calling(time.monotonic() - 1), pytest.raises(DeadlineExceeded):
                predict(backend)
        assert count_predictions(engine) == before
        assert predict(backend) == [1.0, 0.0, 0.0]


def test_an_engine_that_fails_all_requests_is_ejected(engine: ScriptedEngine, other: ScriptedEngine) -> None:
    """After three errors in a row, all requests go to the other engine."""
    with connected(engine, other) as backend:
        engine.script.status = 500
        engine.script.is_ready = False  # it stays ejected for the rest of the test
        failures = 0
        for _ in range(20):
            try:
                predict(backend)
            except EngineFailed:
                failures += 1
        assert failures == 3


def test_the_only_engine_stays_when_it_fails(engine: ScriptedEngine) -> None:
    """The only engine gets requests even after it has failed several."""
    with connected(engine) as backend:
        engine.script.status = 500
        for _ in range(4):
            with pytest.raises(EngineFailed):
                predict(backend)
        engine.script.status = 200
        assert predict(backend) == [1.0, 0.0, 0.0]


def test_extensions_that_are_no_list_are_rejected(engine: ScriptedEngine) -> None:
    """A number in place of the list of extensions fails the start with EngineMismatch."""
    engine.script.server["extensions"] = 5
    with pytest.raises(EngineMismatch, match="cannot be used: TypeError"), connected(engine):
        pass


def test_an_extension_that_is_no_name_is_ignored(engine: ScriptedEngine) -> None:
    """A list in place of the name of an extension is ignored: the engine gets JSON."""
    engine.script.server["extensions"] = [["binary_tensor_data"]]
    with connected(engine) as backend:
        assert predict(backend) == [1.0, 0.0, 0.0]
    assert "Inference-Header-Content-Length" not in engine.script.headers[-1]


def test_connections_beyond_descriptor_1024(engine: ScriptedEngine) -> None:
    """Connections to engines work if the gateway has more than 1,024 open file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with connected(engine) as backend, ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        assert [predict(backend) for _ in range(3)] == [[1.0, 0.0, 0.0]] * 3
