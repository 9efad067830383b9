"""The gateway as its users see it, with the shipped model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from model.classes import UC_MERCED_CLASSES
from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway
from tests.support.paths import ARTEFACT, ATALAYA, FOREST, ROOT
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port

MAX_RESIDENT_BYTES = 260 * 2**20


@pytest.fixture(scope="session")
def label(gateway: Gateway) -> str:
    """The label that `atalaya predict`, without a server, gives the sample image."""
    predict = gateway.run("predict", str(FOREST), "--json")
    assert predict.returncode == 0, predict.stderr
    name: str = json.loads(predict.stdout)[0]["label"]
    assert name in UC_MERCED_CLASSES
    return name


@pytest.mark.parametrize("route", ["/predict-land-use", "/v1/predictions"])
def test_both_routes_agree_with_the_command_line(gateway: Gateway, label: str, route: str) -> None:
    """Both routes give an image the label that `atalaya predict` gives it."""
    response = gateway.client().post(route, files={"file": FOREST.read_bytes()})
    assert (response.status_code, response.json()["label"]) == (200, label)


def test_curl_gets_a_prediction(gateway: Gateway, label: str) -> None:
    """curl with a token gets a prediction."""
    command = ["curl", "-sS", f"{gateway.base_url}/predict-land-use", "-F", f"file=@{FOREST}"]
    curl = subprocess.run(
        [*command, "-H", f"Authorization: Bearer {gateway.token()}"],
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert json.loads(curl.stdout)["label"] == label


def test_concurrent_predictions_succeed(new_gateway: Callable[..., Gateway]) -> None:
    """All 160 predictions on sixteen connections succeed, and /livez responds meanwhile."""
    # On a slow machine sixteen predictions may take longer than the queue usually allows.
    gateway = new_gateway(MODEL__QUEUE_SECONDS="60")
    client = gateway.client()
    image = FOREST.read_bytes()

    def predict(_: int) -> int:
        return client.post("/v1/predictions", files={"file": image}).status_code

    with ThreadPoolExecutor(16) as pool:
        pending = pool.map(predict, range(160))
        alive = [gateway.get("/livez").status_code for _ in range(20)]
        statuses = list(pending)
    assert set(statuses) == {200}
    assert set(alive) == {200}


def test_memory_while_serving(gateway: Gateway) -> None:
    """A gateway of one process stays under 260 MB of resident memory while it serves."""
    client = gateway.client()
    for _ in range(30):
        client.post("/v1/predictions", files={"file": FOREST.read_bytes()})
    assert gateway.resident_bytes() < MAX_RESIDENT_BYTES


def test_private_metrics_port(gateway: Gateway, label: str) -> None:
    """The private port serves the metrics without credentials."""
    gateway.send_every_kind_of_request()
    text = httpx.get(gateway.metrics_url, timeout=TIMEOUT_S).text
    assert f'atalaya_predictions_total{{label="{label}",model="efficientnetb0-v1.1"}}' in text
    assert "process_resident_memory_bytes" in text


def test_log_is_json_without_secrets(gateway: Gateway) -> None:
    """Every log line is JSON, a request's line has its id and principal, and no line has a token or a password."""
    token = gateway.token()
    response = gateway.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    request_id = response.headers["X-Request-ID"]
    wait_until(lambda: request_id in gateway.log())  # the line is written after the response
    lines = [line for line in gateway.log().splitlines() if not line.startswith("First start:")]
    events = [json.loads(line) for line in lines]
    (line,) = [event for event in events if event.get("request_id") == request_id]
    assert (line["http.route"], line["http.response.status_code"]) == ("/v1/me", 200)
    assert line["user.id"]
    assert token not in gateway.log()
    assert PASSWORD not in gateway.log()


def test_the_application_does_not_import_tensorflow() -> None:
    """Importing the application loads neither TensorFlow nor Keras."""
    program = "import sys, api.app; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    command = [sys.executable, "-c", program]
    imported = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert imported.stdout.strip() == "[]"


def test_sigterm_stops_the_gateway_and_users_survive(new_gateway: Callable[..., Gateway]) -> None:
    """SIGTERM ends the gateway with status 0, and users can log in after a restart."""
    gateway = new_gateway()
    assert gateway.stop() == 0
    gateway.start()
    assert gateway.token()
    assert gateway.stop() == 0


def test_a_changed_model_file_is_rejected(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """`predict` rejects a model file whose digest differs from the manifest's, with an error in one line."""
    artefact = tmp_path / "artefact"
    artefact.mkdir()
    for path in ARTEFACT.iterdir():
        (artefact / path.name).write_bytes(path.read_bytes())
    with (artefact / "model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"changed")
    gateway = new_gateway()
    predict = gateway.run("predict", str(FOREST), "--model", str(artefact))
    assert predict.returncode == 1
    assert predict.stderr.startswith("error: ")
    assert predict.stderr.count("\n") == 1


def test_classify(gateway: Gateway, label: str) -> None:
    """`atalaya classify` sends local images and prints their labels; a rejected image makes the exit status 1."""
    good = gateway.run(
        "classify", "--url", gateway.base_url, "--token", gateway.token(), "--json", str(FOREST), str(FOREST)
    )
    assert good.returncode == 0, good.stderr
    assert [result["label"] for result in json.loads(good.stdout)] == [label, label]
    bad = gateway.run("classify", "--url", gateway.base_url, "--token", gateway.token(), str(ROOT / "README.md"))
    assert bad.returncode == 1
    assert "is not a JPEG" in bad.stderr


def test_a_token_of_the_command_line_is_accepted(gateway: Gateway) -> None:
    """The gateway accepts a token that `atalaya token` prints with the same database and key."""
    token = gateway.run("token", "--user", "ana", "--password-stdin", stdin=PASSWORD).stdout.strip()
    response = gateway.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert response.json()["name"] == "ana"


def test_demo(gateway: Gateway, label: str, tmp_path: Path) -> None:
    """`atalaya demo` starts a gateway, makes one prediction and ends with status 0."""
    environment = {
        **gateway.environment,
        "DATABASE_URL": f"sqlite:///{tmp_path}/demo.db",
        "PORT": str(free_port()),
        "METRICS_PORT": "",
    }
    demo = subprocess.run(
        [ATALAYA, "demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert demo.returncode == 0, demo.stderr
    assert f"samples/yellowstone_forest.jpg: {label}, probability" in demo.stdout
    assert "curl -s http://127.0.0.1:" in demo.stdout


def test_example_client(gateway: Gateway, label: str, tmp_path: Path) -> None:
    """examples/client.py prints a label for each image, and the reason for one that is rejected."""
    # There is no terminal here: the password comes from standard input.
    program = (
        "import getpass, runpy, sys; sys.argv = sys.argv[1:]; "
        "getpass.getpass = sys.stdin.readline; runpy.run_path(sys.argv[0])"
    )
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    arguments = [str(ROOT / "examples" / "client.py"), gateway.base_url, "ana", str(FOREST), str(text)]
    example = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        input=PASSWORD,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert f"{FOREST}: {label} (" in example.stdout, example.stderr
    assert f"{text}: This is not a JPEG" in example.stderr
