"""Several workers are one gateway: one port, one ledger, one view of the metrics, one start."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
SAMPLE = (ROOT / "samples" / "yellowstone_forest.jpg").read_bytes()


def workers_of(gateway: Any) -> list[int]:
    pid = gateway.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(true: Callable[[], Any], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ready_workers(gateway: Any) -> int:
    return gateway.log().count('"worker_ready"')


@pytest.fixture
def two_workers(new_gateway: Callable[..., Any]) -> Any:
    gateway = new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2", DRAIN_SECONDS="0")
    wait_until(lambda: ready_workers(gateway) == 2)
    return gateway


def predict(gateway: Any, count: int) -> list[httpx.Response]:
    """So many predictions, each on a connection of its own."""
    headers = {"Authorization": f"Bearer {gateway.token()}", "Content-Type": "image/jpeg"}

    def one(_: int) -> httpx.Response:
        return httpx.post(f"{gateway.base_url}/v1/predictions", content=SAMPLE, headers=headers, timeout=30)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(count)))


def value(text: str, name: str, **labels: str) -> float:
    """The one sample of that name with these labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    (found,) = [one.value for one in samples if one.name == name and labels.items() <= one.labels.items()]
    return found


def answered(text: str) -> float:
    labels = {"http_route": "/v1/predictions", "http_response_status_code": "200"}
    return value(text, "http_server_request_duration_seconds_count", **labels)


def test_one_ledger(two_workers: Any) -> None:
    """Both workers answer, each writes a chain of its own into the one ledger, and no id is given twice."""
    answers = predict(two_workers, 60)
    assert {answer.status_code for answer in answers} == {200}
    ids = {answer.json()["id"] for answer in answers}
    assert len(ids) == 60
    path = two_workers.environment["DATABASE_URL"].removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT id, writer FROM ledger_entries").fetchall()
    connection.close()
    assert ids <= {row[0] for row in rows}
    assert len({row[1] for row in rows}) == 2


def test_one_view_of_the_metrics(two_workers: Any) -> None:
    """Whichever worker is asked, it shows the sums over all; they do not fall when a worker dies."""
    predict(two_workers, 40)
    assert {answered(httpx.get(two_workers.metrics_url).text) for _ in range(6)} == {40}
    os.kill(workers_of(two_workers)[0], signal.SIGKILL)
    wait_until(lambda: ready_workers(two_workers) == 3)
    predict(two_workers, 10)
    text = two_workers.client("olga").get("/metrics").text
    assert answered(text) == 50
    assert value(text, "atalaya_model_info") == 1
    text = httpx.get(two_workers.metrics_url).text
    assert answered(text) == 50
    assert value(text, "http_server_active_requests", http_request_method="POST") == 0
    assert "pid=" not in text


def test_process_figures_are_of_all(two_workers: Any) -> None:
    """`process_*` is about parent and workers together, and each figure is there once."""
    text = httpx.get(two_workers.metrics_url).text
    results = dict(re.findall(r"^(process_\w+) (\S+)$", text, re.MULTILINE))
    pids = [two_workers.process.pid, *workers_of(two_workers)]
    shares = [re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1] for pid in pids]
    resident = float(results["process_resident_memory_bytes"])
    assert resident == pytest.approx(sum(map(int, shares)) * 1024, rel=0.1)
    assert float(results["process_cpu_seconds_total"]) > 0.5
    assert len(results) == len(re.findall(r"^process_\w+ ", text, re.MULTILINE)) == 6


def test_a_dead_worker_is_replaced(two_workers: Any) -> None:
    """A worker that is killed has a successor soon; the other one answers meanwhile, and goes on."""
    killed, kept = workers_of(two_workers)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in workers_of(two_workers) and len(workers_of(two_workers)) == 2)
    assert {answer.status_code for answer in predict(two_workers, 20)} == {200}
    assert kept in workers_of(two_workers)
    assert two_workers.stop() == 0, two_workers.log()


def test_a_restart_that_fails_changes_nothing(new_gateway: Callable[..., Any], tmp_path: Path) -> None:
    """On SIGHUP new workers read all anew; where they cannot start, the old ones serve on."""
    model = tmp_path / "model"
    shutil.copytree(ROOT / "artifacts" / "efficientnetb0-v1.0", model)
    gateway = new_gateway(MODEL__URL=f"onnx://{model}", WEB_CONCURRENCY="2", DRAIN_SECONDS="0")
    wait_until(lambda: ready_workers(gateway) == 2)
    before = workers_of(gateway)
    (model / "model.onnx").unlink()
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "workers_not_restarted" in gateway.log())
    assert sorted(workers_of(gateway)) == sorted(before)
    assert gateway.log().count(f"error: {model}/model.onnx cannot be read.") == 1
    assert {answer.status_code for answer in predict(gateway, 4)} == {200}


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_start_that_cannot_be(new_gateway: Callable[..., Any], taken_port: int, tmp_path: Path) -> None:
    """A start that fails says why in one line, which names the setting or the file, and ends with status 1."""
    gateway = new_gateway(MODEL__URL="stub://", DRAIN_SECONDS="0")
    gateway.stop()
    usual = gateway.environment | {"PORT": "0", "METRICS_PORT": ""}
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(os.urandom(8192))

    def check(changes: dict[str, str], named: str) -> None:
        ended = type(gateway)(gateway.folder, usual | changes).run("serve")
        assert ended.returncode == 1, (changes, ended.stderr)
        assert ended.stderr.startswith("error: "), changes
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert named in ended.stderr
        assert "Traceback" not in ended.stdout
        assert "sesame" not in ended.stderr + ended.stdout

    cases: list[tuple[dict[str, str], str]] = [
        ({"PORT": str(taken_port)}, f"PORT: 127.0.0.1, port {taken_port}"),
        ({"METRICS_PORT": str(taken_port)}, "METRICS_PORT: "),
        ({"WEB_CONCURRENCY": "0"}, "WEB_CONCURRENCY: "),
        ({"MODEL__URL": "onnx:///nowhere"}, "/nowhere/manifest.json"),
        ({"MODEL__URL": "nothing://"}, "MODEL__URL: "),
        ({"AUTH__SIGNING_KEY_FILE": "/nowhere/key"}, "AUTH__SIGNING_KEY_FILE "),
        ({"LEDGER__SIGNING_KEY": "short"}, "LEDGER__SIGNING_KEY: "),
        ({"LEDGER__SPOOL_FOLDER": "/proc/spool"}, "/proc/spool"),
        ({"DATABASE_URL": f"sqlite:///{tmp_path}"}, f"DATABASE_URL: {tmp_path}"),
        ({"DATABASE_URL": f"sqlite:///{damaged}"}, "DATABASE_URL: "),
        ({"DATABASE_URL": "postgresql://x:sesame@127.0.0.1:1/x"}, "DATABASE_URL"),
        ({"TLS_CERTIFICATE": "/nowhere.pem"}, "TLS_CERTIFICATE "),
        ({"SENTRY_DSN": "nonsense"}, "SENTRY_DSN: "),
        # Once, not once a worker.
        ({"WEB_CONCURRENCY": "2", "PORT": str(taken_port)}, "PORT: "),
        ({"WEB_CONCURRENCY": "2", "MODEL__URL": "onnx:///nowhere"}, "/nowhere/manifest.json"),
        ({"WEB_CONCURRENCY": "2", "DATABASE_URL": f"sqlite:///{damaged}"}, "DATABASE_URL: "),
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda case: check(*case), cases))
