"""Several workers that behave as one gateway."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.certificates import public_trust
from tests.support.gateway import TIMEOUT_S, Gateway, make_gateway
from tests.support.linux import processes
from tests.support.paths import ARTEFACT, FOREST
from tests.support.polling import PATIENCE_S, wait_until

IMAGE = FOREST.read_bytes()


def count_ready_workers(gateway: Gateway) -> int:
    """Return how many workers have become ready since the start, including those that have ended."""
    return gateway.log().count('"worker_ready"')


@pytest.fixture
def two_workers(new_gateway: Callable[..., Gateway]) -> Gateway:
    gateway = new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2", MODEL__QUEUE_SECONDS="60")
    wait_until(lambda: count_ready_workers(gateway) == 2)
    return gateway


def predict(gateway: Gateway, count: int) -> list[httpx.Response]:
    """Make `count` predictions, each on a connection of its own."""
    headers = {"Authorization": f"Bearer {gateway.token()}", "Content-Type": "image/jpeg"}

    def predict_once(_: int) -> httpx.Response:
        return gateway.post("/v1/predictions", content=IMAGE, headers=headers)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(predict_once, range(count)))


def sample_value(text: str, name: str, **labels: str) -> float:
    """Return the value of the only sample with this name and these labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    (value,) = [sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]
    return float(value)


def read_metrics(gateway: Gateway) -> str:
    return httpx.get(gateway.metrics_url, timeout=TIMEOUT_S, verify=public_trust()).text


def count_successes(text: str) -> float:
    labels = {"http_route": "/v1/predictions", "http_response_status_code": "200"}
    return sample_value(text, "http_server_request_duration_seconds_count", **labels)


def is_at_rest(text: str) -> bool:
    """Whether no worker runs a request with a body, and none has been suspended since it last reached the database."""
    active = sample_value(text, "http_server_active_requests", http_request_method="POST")
    return active == 0 and sample_value(text, "atalaya_database_up") == 1


def test_workers_share_one_ledger(two_workers: Gateway) -> None:
    """Both workers serve, each writes a chain of its own to the shared ledger, and no id is used twice."""
    responses = list[httpx.Response]()

    def read_rows() -> list[tuple[str, str]]:
        with closing(sqlite3.connect(two_workers.database_path)) as connection:
            return connection.execute("SELECT id, writer FROM ledger_entries").fetchall()

    def have_both_served() -> bool:
        responses.extend(predict(two_workers, 60))
        return len({writer for _, writer in read_rows()}) == 2

    wait_until(have_both_served)  # on a busy machine, one worker may accept all of the first connections
    assert {response.status_code for response in responses} == {200}
    ids = {response.json()["id"] for response in responses}
    assert len(ids) == len(responses)
    # An entry is spooled first if the other worker holds the lock of the database for too long.
    wait_until(lambda: ids <= {entry_id for entry_id, _ in read_rows()})


def test_metrics_are_sums_over_all_workers(two_workers: Gateway) -> None:
    """Every worker reports the sums over all workers, which do not fall when one is killed."""
    predict(two_workers, 40)
    # A worker counts a request after it has sent the response.
    wait_until(lambda: count_successes(read_metrics(two_workers)) == 40)
    assert {count_successes(read_metrics(two_workers)) for _ in range(6)} == {40}
    assert {sample_value(read_metrics(two_workers), "atalaya_usage_predictions_total") for _ in range(6)} == {40}
    os.kill(two_workers.workers()[0], signal.SIGKILL)
    wait_until(lambda: count_ready_workers(two_workers) == 3)
    predict(two_workers, 10)
    wait_until(lambda: count_successes(read_metrics(two_workers)) == 50)
    text = two_workers.client("olga").get("/metrics").text
    assert count_successes(text) == 50
    assert sample_value(text, "atalaya_model_info") == 1
    text = read_metrics(two_workers)
    assert sample_value(text, "atalaya_usage_predictions_total") == 50
    assert sample_value(text, "atalaya_workers") == 2
    assert sample_value(text, "atalaya_worker_restarts_total") == 1
    assert sample_value(text, "atalaya_queue_capacity") == 128
    assert count_successes(text) == 50
    assert "pid=" not in text
    wait_until(lambda: is_at_rest(read_metrics(two_workers)))


def test_process_metrics_cover_all_processes(two_workers: Gateway) -> None:
    """`process_*` metrics are sums over the parent and the workers, and each appears once."""
    pids = [two_workers.pid, *two_workers.workers()]
    cpu_seconds = sum(map(processes.cpu_seconds, pids))

    def is_memory_of_all() -> bool:
        measured = sum(map(processes.proportional_bytes, pids))
        return two_workers.metric("process_resident_memory_bytes") == pytest.approx(measured, rel=0.1)

    wait_until(is_memory_of_all)  # a worker may release memory between the two measurements
    text = read_metrics(two_workers)
    results = dict(re.findall(r"^(process_\w+) (\S+)$", text, re.MULTILINE))
    assert float(results["process_cpu_seconds_total"]) > 0.9 * cpu_seconds > 0
    assert len(results) == len(re.findall(r"^process_\w+ ", text, re.MULTILINE)) == 6


def test_a_dead_worker_is_replaced(two_workers: Gateway) -> None:
    """A worker that is killed is replaced, while the other one continues to serve."""
    killed, other = two_workers.workers()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in two_workers.workers() and len(two_workers.workers()) == 2)
    assert {response.status_code for response in predict(two_workers, 20)} == {200}
    assert other in two_workers.workers()
    assert two_workers.stop() == 0, two_workers.log()


def read_memory(gateway: Gateway) -> list[dict[str, Any]]:
    """Return the log entries in which the workers report the memory that they use for images."""
    return [json.loads(line) for line in gateway.log().splitlines() if '"memory_for_images"' in line]


def test_replaced_workers_share_the_machine_as_before(new_gateway: Callable[..., Gateway]) -> None:
    """A changed WEB_CONCURRENCY needs a restart of the gateway: until then, the workers share the memory as before."""
    gateway = new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2")
    gateway.stop()
    del gateway.environment["WEB_CONCURRENCY"]
    (gateway.folder / ".env").write_text("WEB_CONCURRENCY=2\n")
    gateway.start()
    wait_until(lambda: count_ready_workers(gateway) == 2)
    (gateway.folder / ".env").write_text("WEB_CONCURRENCY=1\n")
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(read_memory(gateway)) == 4)
    assert all(entry["bytes"] <= entry["limit_bytes"] / 2 for entry in read_memory(gateway))


def test_a_restart_that_fails_changes_nothing(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """If the new workers after a SIGHUP cannot start, the old ones continue to serve."""
    model = tmp_path / "model"
    shutil.copytree(ARTEFACT, model)
    gateway = new_gateway(MODEL__URL=f"onnx://{model}", WEB_CONCURRENCY="2")
    wait_until(lambda: count_ready_workers(gateway) == 2)
    before = gateway.workers()
    (model / "model.onnx").unlink()
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "workers_not_restarted" in gateway.log())
    assert sorted(gateway.workers()) == sorted(before)
    assert gateway.log().count(f"error: {model}/model.onnx cannot be read.") == 1
    assert {response.status_code for response in predict(gateway, 4)} == {200}


def test_a_start_whose_preparation_is_killed_says_so(tmp_path: Path) -> None:
    """If the kernel kills the process that creates the tables, the gateway says with which signal, and exits with 1."""
    gateway = make_gateway(tmp_path, MODEL__URL="stub://", WEB_CONCURRENCY="2")
    gateway.database_path.unlink()
    with closing(sqlite3.connect(gateway.database_path)) as connection:
        connection.execute("BEGIN EXCLUSIVE")  # the preparation waits for it
        gateway.launch()
        wait_until(gateway.workers)
        (preparation,) = gateway.workers()
        os.kill(preparation, signal.SIGKILL)
        assert gateway.process.wait(PATIENCE_S) == 1
    assert "error: Signal 9 ended the preparation of the start; 9 can mean too little memory.\n" in gateway.log()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_failing_start_says_why_in_one_line(
    new_gateway: Callable[..., Gateway], taken_port: int, tmp_path: Path
) -> None:
    """A start that fails writes one line that names the setting or the file, and exits with status 1."""
    gateway = new_gateway(MODEL__URL="stub://")
    gateway.stop()
    stopped = gateway.with_settings(PORT="0", METRICS_PORT="")
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(os.urandom(8192))

    def check(changes: dict[str, str], named: str) -> None:
        ended = stopped.with_settings(**changes).run("serve")
        assert ended.returncode == 1, (changes, ended.stderr)
        assert ended.stderr.startswith("error: "), changes
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert named in ended.stderr
        assert "Traceback" not in ended.stdout
        assert "sesame" not in ended.stderr + ended.stdout

    cases: list[tuple[dict[str, str], str]] = [
        ({"PORT": str(taken_port)}, f"Port {taken_port} is already in use. Choose another with --port or PORT."),
        ({"METRICS_PORT": str(taken_port)}, "Choose another with METRICS_PORT."),
        ({"WEB_CONCURRENCY": "0"}, "WEB_CONCURRENCY: "),
        ({"MODEL__URL": "onnx:///nowhere"}, "/nowhere/manifest.json"),
        ({"MODEL__URL": "nothing://"}, "MODEL__URL: "),
        ({"MODEL__URL": "registry://land"}, "MODEL__URL: names a model of a registry, so MODEL__REGISTRY must be set."),
        (
            {"MODEL__URL": "registry://land", "MODEL__REGISTRY": f"file://{tmp_path}/none", "WEB_CONCURRENCY": "2"},
            "MODEL__URL: There is no model 'land'.",
        ),
        ({"AUTH__SIGNING_KEY_FILE": "/nowhere/key"}, "AUTH__SIGNING_KEY_FILE: "),
        ({"LEDGER__SIGNING_KEY": "short"}, "LEDGER__SIGNING_KEY: "),
        ({"LEDGER__SPOOL_FOLDER": "/proc/spool"}, "/proc/spool"),
        ({"DATABASE_URL": f"sqlite:///{tmp_path}"}, f"DATABASE_URL: {tmp_path}"),
        ({"DATABASE_URL": f"sqlite:///{damaged}"}, "DATABASE_URL: "),
        ({"DATABASE_URL": "postgresql://x:sesame@127.0.0.1:1/x"}, "DATABASE_URL"),
        ({"TLS_CERTIFICATE": "/nowhere.pem"}, "TLS_CERTIFICATE: "),
        ({"SENTRY_DSN": "nonsense"}, "SENTRY_DSN: "),
        # One line, not one for each worker.
        ({"WEB_CONCURRENCY": "2", "PORT": str(taken_port)}, "Choose another with --port or PORT."),
        ({"WEB_CONCURRENCY": "2", "MODEL__URL": "onnx:///nowhere"}, "/nowhere/manifest.json"),
        ({"WEB_CONCURRENCY": "2", "DATABASE_URL": f"sqlite:///{damaged}"}, "DATABASE_URL: "),
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda case: check(*case), cases))
