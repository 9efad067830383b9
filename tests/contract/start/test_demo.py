"""What `make demo` and `make run` do besides predicting, and what they never do."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from auth.login.data_keys import new_data_key
from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key
from tests.contract.start.checkout import Checkout
from tests.support.gateway import TIMEOUT_S
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port

PASSWORD = re.compile(r"-d username=demo -d password=(\S+)")
BEARER = re.compile(r"'Authorization: (Bearer \S+)'")


def make_secrets() -> dict[str, str]:
    keys = {"AUTH__SIGNING_KEY": generate_signing_key("ES256"), "LEDGER__SIGNING_KEY": new_private_key()}
    return {**keys, "AUTH__DATA_KEY": new_data_key()}


@pytest.fixture
def new_home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def demo(checkout: Checkout, home: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the demo with the stub back end, in the given home."""
    changes = {"ATALAYA_HOME": str(home), "MODEL__URL": "stub://", **changes}
    return checkout.run(checkout.atalaya, "demo", changes=changes)


def start(checkout: Checkout, *arguments: str, **changes: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    environment = {**checkout.environment, **changes}
    return subprocess.Popen([checkout.atalaya, *arguments], env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def foreign_server(checkout: Checkout) -> Iterator[socket.socket]:
    """Another program that listens on the port, and accepts every connection."""
    with socket.create_server(("127.0.0.1", int(checkout.environment["PORT"]))) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("command", ["demo", "serve"])
def test_a_port_in_use_is_reported_before_anything_else(
    checkout: Checkout, new_home: Path, foreign_server: socket.socket, command: str
) -> None:
    """When another program uses the port, one line says so; nothing is created, and nothing is sent to the program."""
    secrets = make_secrets() if command == "serve" else {}
    ended = checkout.run(checkout.atalaya, command, changes={"ATALAYA_HOME": str(new_home), **secrets})
    port = checkout.environment["PORT"]
    assert (ended.returncode, ended.stdout) == (1, "")
    names = "--port or PORT" if command == "serve" else "PORT"
    assert ended.stderr == f"error: Port {port} is already in use. Choose another with {names}.\n"
    assert list(new_home.iterdir()) == []
    with pytest.raises(BlockingIOError):
        foreign_server.accept()


def test_make_checks_the_port_before_it_installs(checkout: Checkout, foreign_server: socket.socket) -> None:
    """`make demo` reports a port in use before it sets up an environment."""
    port = foreign_server.getsockname()[1]
    ended = checkout.run("make", "demo", "VENV=.new")
    assert ended.stderr.startswith(f"error: Port {port} is already in use. Choose another with PORT.\n")
    assert ended.returncode != 0
    assert not (checkout.folder / ".new").exists()


def test_the_first_users_are_in_the_audit_log(checkout: Checkout, new_home: Path) -> None:
    """The audit log names the administrator and the demo's user, with their roles."""
    first = demo(checkout, new_home)
    assert first.returncode == 0, first.stderr
    log = checkout.run(checkout.atalaya, "audit", "--event", "user", changes={"ATALAYA_HOME": str(new_home)}).stdout
    created = [line.partition("target=")[2] for line in log.splitlines() if " user created " in line]
    assert created == ["user:admin role=admin", "user:demo role=client"]


def test_a_second_demo_changes_no_credential(checkout: Checkout, new_home: Path) -> None:
    """The password and the token that the first demo has printed still work after a second demo."""
    first, second = demo(checkout, new_home), demo(checkout, new_home)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    (password,), (token,) = PASSWORD.findall(first.stdout), BEARER.findall(first.stdout)
    assert PASSWORD.findall(second.stdout) == []
    assert second.stderr == ""
    home = {"ATALAYA_HOME": str(new_home), "MODEL__URL": "stub://"}
    login = checkout.run(checkout.atalaya, "token", "--user", "demo", "--password-stdin", stdin=password, changes=home)
    assert login.returncode == 0, login.stderr
    process = start(checkout, "serve", **home)
    url = f"http://127.0.0.1:{checkout.environment['PORT']}"
    wait_until(lambda: checkout.run(checkout.atalaya, "healthcheck", changes=home).returncode == 0)
    me = httpx.get(f"{url}/v1/me", headers={"Authorization": token}, timeout=TIMEOUT_S)
    process.terminate()
    process.communicate(timeout=PATIENCE_S)
    assert me.json()["name"] == "demo"


def test_an_abstention_is_said_in_words(checkout: Checkout, new_home: Path) -> None:
    """If the model abstains for the sample, the demo names the class and says why not to rely on it."""
    ended = demo(checkout, new_home, MODEL__URL="stub://?min_confidence=0.99")
    assert ended.returncode == 0, ended.stderr
    assert "probability 0." in ended.stdout
    assert "The model abstains: its confidence in the land use is too low. Do not rely on" in ended.stdout


def test_a_copied_example_is_completed(checkout: Checkout, new_home: Path) -> None:
    """With a copy of .env.example, the demo adds the secrets where they are empty and keeps everything else."""
    file = new_home / ".env"
    shutil.copy(checkout.folder / ".env.example", file)
    before = file.read_text().splitlines()
    ended = checkout.run(checkout.atalaya, "demo", changes={"ATALAYA_HOME": str(new_home)})
    assert ended.returncode == 0, ended.stderr
    assert '"event.name"' not in ended.stdout  # the default log level prints no log either
    after = file.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    secrets = ["AUTH__SIGNING_KEY=", "AUTH__DATA_KEY=", "LEDGER__SIGNING_KEY="]
    assert [old for old, _ in changed] == secrets
    assert all(new.startswith(old) and len(new) > len(old) + 20 for old, new in changed)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_secrets_from_the_environment_are_enough(checkout: Checkout, new_home: Path) -> None:
    """If the environment has the secrets, the demo writes no .env."""
    assert demo(checkout, new_home, **make_secrets()).returncode == 0
    assert not (new_home / ".env").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_the_gateway_ends_with_the_demo(checkout: Checkout, new_home: Path, number: signal.Signals) -> None:
    """When a signal stops `atalaya demo --stay`, its gateway stops too, and prints nothing."""
    home = {"ATALAYA_HOME": str(new_home), "MODEL__URL": "stub://", "PORT": str(free_port())}
    process = start(checkout, "demo", "--stay", **home)
    assert process.stdout is not None
    assert any("Press Ctrl-C" in line for line in process.stdout)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (130 if number == signal.SIGINT else 0)
    assert "New keys are in" in errors
    assert errors.count("\n") == 2  # the second line has the password of the first administrator
    with socket.create_server(("127.0.0.1", int(home["PORT"]))):
        pass
