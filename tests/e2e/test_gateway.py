"""The gateway as its users meet it: a process, a port, a token, an image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.classes import UC_MERCED_CLASSES

ROOT = Path(__file__).parents[2]
FOREST = ROOT / "samples" / "yellowstone_forest.jpg"
RSS_LIMIT_KB = 260 * 1024


@pytest.fixture(scope="session")
def label(gateway: Any) -> str:
    """What the shipped model calls the sample, asked without a server."""
    answer = gateway.run("predict", str(FOREST), "--json")
    assert answer.returncode == 0, answer.stderr
    name: str = json.loads(answer.stdout)[0]["label"]
    assert name in UC_MERCED_CLASSES
    return name


@pytest.mark.parametrize("route", ["/predict-land-use", "/v1/predictions"])
def test_both_routes_answer_as_the_model(gateway: Any, label: str, route: str) -> None:
    """Both routes name an image as the model does without a server."""
    answer = gateway.client().post(route, files={"file": FOREST.read_bytes()})
    assert (answer.status_code, answer.json()["label"]) == (200, label)


def test_curl_gets_a_prediction(gateway: Any, label: str) -> None:
    """Plain curl with a token gets a prediction."""
    command = ["curl", "-sS", f"{gateway.base_url}/predict-land-use", "-F", f"file=@{FOREST}"]
    answer = subprocess.run(
        [*command, "-H", f"Authorization: Bearer {gateway.token()}"], capture_output=True, check=True, timeout=30
    )
    assert json.loads(answer.stdout)["label"] == label


def test_crowd(gateway: Any) -> None:
    """Sixteen connections of authenticated predictions: none fails, and the gateway answers that it lives."""
    client = gateway.client()
    image = FOREST.read_bytes()

    def predict(_: int) -> int:
        return client.post("/v1/predictions", files={"file": image}).status_code

    with ThreadPoolExecutor(16) as pool:
        pending = pool.map(predict, range(160))
        alive = [httpx.get(f"{gateway.base_url}/livez").status_code for _ in range(20)]
        statuses = list(pending)
    assert set(statuses) == {200}
    assert set(alive) == {200}


def test_memory_while_serving(gateway: Any) -> None:
    """One process stays under 260 MB of resident memory while it serves."""
    client = gateway.client()
    for _ in range(30):
        client.post("/v1/predictions", files={"file": FOREST.read_bytes()})
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    resident_kb = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])
    assert resident_kb < RSS_LIMIT_KB


def test_private_metrics_port(gateway: Any, label: str) -> None:
    """The private port serves the metrics without a login."""
    gateway.traffic()
    text = httpx.get(gateway.metrics_url).text
    assert f'atalaya_predictions_total{{label="{label}",model="efficientnetb0-v1.0"}}' in text
    assert "process_resident_memory_bytes" in text


def test_log_is_json_without_secrets(gateway: Any) -> None:
    """Every log line is JSON; a request's line has its id and principal, and no line has a token or password."""
    client = gateway.client()
    request_id = client.get("/v1/me").headers["X-Request-ID"]
    token = client.headers["Authorization"].removeprefix("Bearer ")
    deadline = time.monotonic() + 10
    while request_id not in gateway.log():  # the line is written behind the answer
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lines = [line for line in gateway.log().splitlines() if not line.startswith("First start:")]
    events = [json.loads(line) for line in lines]
    (line,) = [event for event in events if event.get("request_id") == request_id]
    assert (line["route"], line["status"]) == ("/v1/me", 200)
    assert line["principal"]
    assert token not in gateway.log()
    assert "correct horse" not in gateway.log()


def test_tensorflow_stays_out() -> None:
    """Importing the application loads neither TensorFlow nor Keras."""
    program = "import sys, api.app; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


def test_stops_when_asked(new_gateway: Callable[..., Any]) -> None:
    """SIGTERM ends the gateway with status 0; users and their passwords are there after a restart."""
    gateway = new_gateway()
    assert gateway.stop() == 0
    gateway.start()
    assert gateway.token()
    assert gateway.stop() == 0


def test_admin_password_is_shown_once(new_gateway: Callable[..., Any], tmp_path: Path) -> None:
    """The first start of an empty database makes `admin` and shows a working password, which no later start repeats."""
    gateway = new_gateway()
    assert "First start" not in gateway.log()
    gateway.stop()
    gateway.environment["DATABASE_URL"] = f"sqlite:///{tmp_path}/empty.db"
    gateway.start()
    password = re.search(r"First start: the user `admin` has the password (\S+)", gateway.log())[1]
    assert gateway.run("token", "--user", "admin", "--password-stdin", stdin=password).returncode == 0
    gateway.stop()
    gateway.start()
    assert "First start" not in gateway.log()


def test_changed_model_file_is_refused(new_gateway: Callable[..., Any], tmp_path: Path) -> None:
    """A model whose bytes are not those of its manifest is refused at start, in one line."""
    artefact = tmp_path / "artefact"
    artefact.mkdir()
    for path in (ROOT / "artifacts" / "efficientnetb0-v1.0").iterdir():
        (artefact / path.name).write_bytes(path.read_bytes())
    with (artefact / "model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"changed")
    gateway = new_gateway()
    answer = gateway.run("predict", str(FOREST), "--model", str(artefact))
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1


def test_classify(gateway: Any, label: str) -> None:
    """`atalaya classify` sends local images and prints their labels; one that is refused makes the status 1."""
    good = gateway.run(
        "classify", "--url", gateway.base_url, "--token", gateway.token(), "--json", str(FOREST), str(FOREST)
    )
    assert good.returncode == 0, good.stderr
    assert [answer["label"] for answer in json.loads(good.stdout)] == [label, label]
    bad = gateway.run("classify", "--url", gateway.base_url, "--token", gateway.token(), str(ROOT / "README.md"))
    assert bad.returncode == 1
    assert "is not a JPEG" in bad.stderr


def test_token_of_the_command_line_is_honoured(gateway: Any) -> None:
    """A token printed by `atalaya token` opens the gateway of the same database and key."""
    token = gateway.run("token", "--user", "ana", "--password-stdin", stdin="correct horse battery").stdout.strip()
    answer = httpx.get(f"{gateway.base_url}/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["name"] == "ana"


def test_demo(gateway: Any, label: str, tmp_path: Path) -> None:
    """`atalaya demo` makes one prediction on a gateway of its own and ends with status 0."""
    environment = {
        **gateway.environment,
        "DATABASE_URL": f"sqlite:///{tmp_path}/demo.db",
        "PORT": gateway.free_port(),
        "METRICS_PORT": "",
    }
    command = [Path(sys.executable).with_name("atalaya"), "demo"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"samples/yellowstone_forest.jpg: {label}, probability" in done.stdout
    assert "curl -s http://127.0.0.1:" in done.stdout


def test_example_client(gateway: Any, label: str, tmp_path: Path) -> None:
    """The example for copying prints a label for each image, and why one was refused."""
    # There is no terminal here: the password comes from standard input, the arguments as if typed.
    program = (
        "import getpass, runpy, sys; sys.argv = sys.argv[1:]; "
        "getpass.getpass = sys.stdin.readline; runpy.run_path(sys.argv[0])"
    )
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    arguments = [str(ROOT / "examples" / "client.py"), gateway.base_url, "ana", str(FOREST), str(text)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        input="correct horse battery",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert f"{FOREST}: {label} (" in done.stdout, done.stderr
    assert f"{text}: This is not a JPEG" in done.stderr
