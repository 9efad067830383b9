"""Threat T61: a log that leaves the machine reveals no secret, fills no disk, and stops no prediction."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.monitoring.logs.receiver import LogReceiver, running_receiver
from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway, running_gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until

HEADER_SECRET = "hush-header-2f6b"
URL_SECRET = "hush-url-91ac"
WRONG_PASSWORD = "hush-password-77d0"
REFUSALS = 2000
CONNECTIONS = 4
RAILWAY_LINES_PER_S = 500
# Draining, closing and waiting for the receiver take three seconds at most; a gateway that hangs is killed after ten.
STOPPED_WITHIN_S = 9.0


@pytest.fixture(scope="module")
def receiver() -> Iterator[LogReceiver]:
    with running_receiver(LogReceiver()) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def shipping(receiver: LogReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of two workers that sends its log to the receiver and keeps it in files, at the level debug."""
    folder = tmp_path_factory.mktemp("shipping")
    settings = {
        "MODEL__URL": "stub://",
        "WEB_CONCURRENCY": "2",
        "LOG_LEVEL": "debug",
        "LOGS__FILE": "var/log/atalaya.log",
        "LOGS__SEND_URL": f"{receiver.url}&key={URL_SECRET}",
        "LOGS__SEND_HEADERS": json.dumps({"DD-API-KEY": HEADER_SECRET}),
    }
    with running_gateway(folder, **settings) as gateway:
        yield gateway


def read_files(gateway: Gateway) -> str:
    return "".join(path.read_text() for path in sorted((gateway.folder / "var" / "log").iterdir()))


def send_with_secrets(gateway: Gateway) -> tuple[str, list[str]]:
    """Send secrets in every part of a request; return the id of the last one, and the secrets."""
    token = gateway.token()
    gateway.log_in("ana", WRONG_PASSWORD)
    request_id = "T61-planted-secrets"
    with httpx.Client(base_url=gateway.base_url, timeout=TIMEOUT_S) as client:
        client.get(f"/{token}", params={"access_token": token, "password": WRONG_PASSWORD})
        client.get("/v1/me", headers={"Authorization": f"Bearer {token}x", "User-Agent": f"password={WRONG_PASSWORD}"})
        client.post("/v1/predictions", files={"file": (f"{token}.jpg", b"text")}, headers={"X-API-Key": f"atl_{token}"})
        client.get("/v1/me", headers={"Authorization": f"Bearer {token}", "X-Request-ID": request_id})
    return request_id, [*token.split("."), PASSWORD, WRONG_PASSWORD, URL_SECRET, HEADER_SECRET]


def test_no_secret_arrives(shipping: Gateway, receiver: LogReceiver) -> None:
    """T61: neither the receiver nor the files get a password, a token, or the credentials of the receiver itself."""
    request_id, secrets = send_with_secrets(shipping)
    wait_until(lambda: any(line.get("request_id") == request_id for line in receiver.accepted))
    wait_until(lambda: request_id in read_files(shipping))
    received = b"".join(receiver.bodies).decode()
    for secret in secrets:
        assert secret not in received
        assert secret not in read_files(shipping)
        assert secret not in shipping.log()
    assert all(headers["dd-api-key"] == HEADER_SECRET for headers in receiver.requests)


def test_log_files_are_private(shipping: Gateway) -> None:
    """T61: only the gateway's user can read the log files."""
    folder = shipping.folder / "var" / "log"
    wait_until(lambda: folder.is_dir() and list(folder.iterdir()))
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def send_refused(gateway: Gateway) -> int:
    """Send one connection's share of the flood, and return the status of the last response."""
    status = 0
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=TIMEOUT_S)) as connection:
        for _ in range(REFUSALS // CONNECTIONS):
            connection.request("GET", "/nowhere-t61")
            response = connection.getresponse()
            response.read()
            status = response.status
    return status


def parse_log(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_many_rejections_do_not_fill_the_log(shipping: Gateway) -> None:
    """T61: of thousands of rejected requests, some are logged, the others counted, and no second has 500 lines."""

    def counted(lines: list[dict[str, Any]]) -> int:
        refused: int = sum(line.get("http.response.status_code") == 404 for line in lines)
        kinds = [kind for line in lines for kind in line.get("most", ()) if kind["http.response.status_code"] == 404]
        not_logged: int = sum(kind["count"] for kind in kinds)
        return refused + not_logged

    before = counted(parse_log(shipping.log()))
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        assert set(pool.map(send_refused, [shipping] * CONNECTIONS)) == {404}
    wait_until(lambda: counted(parse_log(shipping.log())) - before >= REFUSALS)
    lines = parse_log(shipping.log())
    assert sum(line.get("http.response.status_code") == 404 for line in lines) < REFUSALS
    assert max(Counter(line["timestamp"][:19] for line in lines).values()) < RAILWAY_LINES_PER_S


def test_neither_a_full_disk_nor_a_hung_receiver_stops_predictions(tmp_path: Path) -> None:
    """T61: with a full disk for the log and a receiver that never responds, predictions and the shutdown succeed."""
    (tmp_path / "logs").mkdir()
    today = datetime.now(UTC).date()
    for date in (today, today + timedelta(days=1)):  # the test may run across midnight
        (tmp_path / "logs" / f"atalaya-{date}.log").symlink_to("/dev/full")
    with running_receiver(LogReceiver()) as receiver:
        receiver.released.clear()
        settings = {"LOGS__FILE": str(tmp_path / "logs" / "atalaya.log"), "LOGS__SEND_URL": receiver.url}
        with running_gateway(tmp_path / "gateway", MODEL__URL="stub://", **settings) as gateway:
            client = gateway.client()
            for _ in range(20):
                assert client.post("/v1/predictions", files={"file": FOREST.read_bytes()}).status_code == 200
            wait_until(lambda: gateway.metric('atalaya_log_lines_dropped_total{output="file"}') >= 20)
            wait_until(lambda: receiver.requests)
            assert gateway.metric('atalaya_log_lines_dropped_total{output="http"}') == 0
            wait_until(lambda: '"log_file_unwritable"' in gateway.log())
            started = time.monotonic()
            assert gateway.stop() == 0
            assert time.monotonic() - started < STOPPED_WITHIN_S
