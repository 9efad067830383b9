"""The log of a running gateway on standard output, in files, at an HTTP receiver and on a terminal."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.monitoring.logs.receiver import LogReceiver, running_receiver
from tests.support.gateway import Gateway, make_gateway, running_gateway
from tests.support.paths import ATALAYA, FOREST
from tests.support.polling import PATIENCE_S, wait_until


@pytest.fixture(scope="module")
def receiver() -> Iterator[LogReceiver]:
    with running_receiver(LogReceiver()) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def gateway(receiver: LogReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with two workers that logs to standard output, to files and to the receiver, in Datadog's format."""
    settings = {
        "MODEL__URL": "stub://",
        "WEB_CONCURRENCY": "2",
        "LOGS__FORMAT": "datadog",
        "LOGS__FILE": "logs/gateway.jsonl",
        "LOGS__SEND_URL": receiver.url,
    }
    with running_gateway(tmp_path_factory.mktemp("logs"), **settings) as gateway:
        yield gateway


def parse(text: str) -> list[dict[str, Any]]:
    """Parse the lines that are complete."""
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def read_files(gateway: Gateway) -> list[dict[str, Any]]:
    return parse("".join(path.read_text() for path in sorted((gateway.folder / "logs").iterdir())))


def of_request(lines: list[dict[str, Any]], request_id: str) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("http.request_id") == request_id]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/v1/me", 200, None), ("/nowhere", 404, "not_found")],
)
def test_each_request_has_one_line_everywhere(
    gateway: Gateway, receiver: LogReceiver, path: str, status: int, code: str | None
) -> None:
    """A request has exactly one line, which is the same on standard output, in the file and at the receiver."""
    request_id = f"line-of-{path.rpartition('/')[2]}"
    assert gateway.client().get(path, headers={"X-Request-ID": request_id}).status_code == status
    wait_until(lambda: of_request(receiver.accepted, request_id))
    wait_until(lambda: of_request(read_files(gateway), request_id))
    wait_until(lambda: of_request(parse(gateway.log()), request_id))
    (line,) = of_request(parse(gateway.log()), request_id)
    assert of_request(receiver.accepted, request_id) == of_request(read_files(gateway), request_id) == [line]
    assert (line["http.status_code"], line["status"], line.get("error.kind")) == (status, "info", code)


@pytest.mark.usefixtures("gateway")
def test_the_supervisor_and_every_worker_send(receiver: LogReceiver) -> None:
    """The lines of the supervisor and of each worker arrive once, although a fork copies what its parent has queued."""

    def count(name: str) -> int:
        return sum(line.get("evt.name") == name for line in receiver.accepted)

    # Each process sends its own lines, so the lines of different processes arrive in any order.
    expected = {"gateway_ready": 1, "worker_ready": 2, "model_loaded": 2}
    wait_until(lambda: all(count(name) >= times for name, times in expected.items()))
    assert {name: count(name) for name in expected} == expected


def test_a_prediction_has_one_line(gateway: Gateway, receiver: LogReceiver) -> None:
    """A prediction is logged as exactly one line."""
    request_id = "one-prediction"
    headers = {"X-Request-ID": request_id}
    response = gateway.client().post("/v1/predictions", files={"file": FOREST.read_bytes()}, headers=headers)
    assert response.status_code == 200
    wait_until(lambda: of_request(receiver.accepted, request_id))
    wait_until(lambda: of_request(parse(gateway.log()), request_id))
    assert [line["message"] for line in of_request(parse(gateway.log()), request_id)] == ["POST /v1/predictions 200"]


def test_the_last_lines_are_sent_before_the_end(tmp_path: Path) -> None:
    """A gateway that shuts down sends its last log lines without waiting for the next batch."""
    with running_receiver(LogReceiver()) as receiver:
        gateway = make_gateway(tmp_path, MODEL__URL="stub://", WEB_CONCURRENCY="2", LOGS__SEND_URL=receiver.url)
        gateway.start()
        gateway.get("/nowhere", headers={"X-Request-ID": "the-last-request"})
        assert gateway.stop() == 0
        assert any(line.get("request_id") == "the-last-request" for line in receiver.accepted)
        assert receiver.events().count("worker_ended") == 2


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_terminal_shows_where_the_gateway_listens(tmp_path: Path, workers: str) -> None:
    """On a terminal, `serve` prints its address and how to stop it, logs in the console format, and stops on Ctrl-C."""
    gateway = make_gateway(tmp_path, MODEL__URL="stub://", WEB_CONCURRENCY=workers)
    terminal = pexpect.spawn(
        str(ATALAYA),
        ["serve"],
        cwd=str(tmp_path),
        env=gateway.environment,
        encoding="utf-8",
        timeout=int(PATIENCE_S),
        dimensions=(50, 200),
    )
    terminal.expect_exact(f"Serving at {gateway.base_url}.")
    terminal.expect_exact(f"{gateway.base_url}/docs. Press Ctrl-C to stop.")
    gateway.get("/nowhere", headers={"X-Request-ID": "on-a-terminal"})
    terminal.expect(r"\d\d:\d\d:\d\d INFO    GET unmatched 404  ")
    terminal.expect_exact("request_id=on-a-terminal")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert terminal.signalstatus is None


def test_the_form_can_be_chosen(tmp_path: Path) -> None:
    """LOGS__FORMAT sets the format of output that is not a terminal."""
    with running_gateway(tmp_path, MODEL__URL="stub://", LOGS__FORMAT="logfmt") as gateway:
        gateway.get("/nowhere", headers={"X-Request-ID": "in-logfmt-form"})
        wait_until(lambda: "request_id=in-logfmt-form" in gateway.log())
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(PATIENCE_S) == 0
    line = next(line for line in gateway.log().splitlines() if "in-logfmt-form" in line)
    assert 'level=info message="GET unmatched 404" service.name=atalaya event.name=request' in line
