"""Commands work from any folder: where they find settings, database, model and the running gateway."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.contract.start.checkout import Checkout
from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway, make_gateway
from tests.support.paths import ATALAYA
from tests.support.polling import PATIENCE_S
from tests.support.ports import free_port

SAMPLE = "samples/yellowstone_forest.jpg"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose issuer is derived from its port."""
    gateway = make_gateway(tmp_path_factory.mktemp("home"), MODEL__URL="stub://")
    gateway.start()
    yield gateway
    gateway.stop()


def test_commands_find_the_checkout_from_any_folder(checkout: Checkout, tmp_path: Path) -> None:
    """Settings, database and model are those of the checkout; command-line paths are relative to the current folder."""
    for arguments in (("secrets", "init"), ("db", "init"), ("users", "list", "--json"), ("ledger", "key")):
        ended = checkout.run(checkout.atalaya, *arguments, cwd=Path("/"))
        assert ended.returncode == 0, ended.stderr
    shutil.copy(checkout.folder / SAMPLE, tmp_path / "image.jpg")
    predicted = checkout.run(checkout.atalaya, "predict", "image.jpg", "--json", cwd=tmp_path)
    assert [each["label"] for each in json.loads(predicted.stdout)] == ["forest"]
    assert (checkout.folder / ".env").exists()
    assert (checkout.folder / "var" / "atalaya.db").exists()


def test_the_home_can_be_another_folder(checkout: Checkout, tmp_path: Path) -> None:
    """ATALAYA_HOME names the folder of .env and var/; a home without a model uses the checkout's."""
    home = {"ATALAYA_HOME": str(tmp_path)}
    for arguments in (("secrets", "init"), ("db", "init")):
        assert checkout.run(checkout.atalaya, *arguments, cwd=Path("/"), changes=home).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {".env", "var"}
    assert checkout.run(checkout.atalaya, "predict", SAMPLE, changes=home).returncode == 0
    missing = checkout.run(checkout.atalaya, "users", "list", changes={"ATALAYA_HOME": str(tmp_path / "none")})
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert missing.stderr.startswith(f"error: ATALAYA_HOME: {tmp_path}/none is not a folder.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["users", "list"],
        ["users", "add", "ana", "--role", "client", "--password-stdin"],
        ["audit"],
        ["keys", "list"],
        ["clients", "list"],
        ["ledger", "verify"],
        ["ledger", "prune"],
    ],
    ids=" ".join,
)
def test_only_the_gateway_and_db_init_create_a_database(
    checkout: Checkout, gateway: Gateway, tmp_path: Path, arguments: list[str]
) -> None:
    """Other commands report the path of the missing database, and create neither the file nor its folder."""
    secrets = {name: value for name, value in gateway.environment.items() if name.endswith("SIGNING_KEY")}
    changes = {"ATALAYA_HOME": str(tmp_path), **secrets}
    ended = checkout.run(checkout.atalaya, *arguments, stdin=PASSWORD, changes=changes)
    database = tmp_path / "var" / "atalaya.db"
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"error: There is no database at {database}. Run `atalaya db init` to create it.\n"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_postgresql_database_is_no_database(checkout: Checkout, postgres_url: str) -> None:
    """A PostgreSQL database without tables is reported like a missing file, until `db init` has created them."""
    changes = {"DATABASE_URL": postgres_url}
    ended = checkout.run(checkout.atalaya, "users", "list", changes=changes)
    assert ended.returncode == 1
    assert "There is no database at " in ended.stderr
    created = checkout.run(checkout.atalaya, "db", "init", "--json", changes=changes)
    assert created.returncode == 0, created.stderr
    assert json.loads(created.stdout)["database"] in ended.stderr
    assert checkout.run(checkout.atalaya, "users", "list", "--json", changes=changes).stdout == "[]\n"


def test_a_token_is_for_the_running_gateway(gateway: Gateway) -> None:
    """`atalaya token` issues a token for the gateway that runs in the home, whatever PORT says, or at --url."""
    other = gateway.with_settings(PORT=str(free_port()))
    for options in ((), ("--url", gateway.base_url)):
        token = other.run("token", "--user", "ana", "--password-stdin", *options, stdin=PASSWORD).stdout.strip()
        assert get_me(gateway, token).json()["name"] == "ana"


def test_a_rejected_issuer_is_named(gateway: Gateway) -> None:
    """The error about a token for another issuer names that issuer and the gateway's own."""
    # No gateway runs in this home, so the token's issuer is derived from the settings.
    elsewhere = gateway.folder / "elsewhere"
    elsewhere.mkdir()
    other = gateway.with_settings(PORT="9999", ATALAYA_HOME=str(elsewhere))
    token = other.run("token", "--user", "ana", "--password-stdin", stdin=PASSWORD).stdout.strip()
    response = get_me(gateway, token)
    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert "issuer is http://localhost:9999" in response.json()["detail"]
    assert f"this gateway's is http://localhost:{gateway.port}." in response.json()["detail"]


def test_a_token_for_a_foreign_gateway_is_not_issued(gateway: Gateway, tmp_path: Path) -> None:
    """`atalaya token --url` issues no token for a gateway with other keys, for another kind of server, or for none."""
    stranger = make_gateway(tmp_path, MODEL__URL="stub://")
    for url, reason in (
        (gateway.base_url, "does not use the signing key of this installation"),
        (gateway.metrics_url.removesuffix("/metrics"), "is this an Atalaya gateway?"),
        ("http://127.0.0.1:1", "cannot be reached"),
    ):
        ended = stranger.run("token", "--user", "ana", "--password-stdin", "--url", url, stdin=PASSWORD)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert reason in ended.stderr


def test_healthcheck_asks_the_running_gateway(gateway: Gateway, tmp_path: Path) -> None:
    """`atalaya healthcheck` succeeds while the home's gateway is ready, even if PORT differs, and fails without one."""
    wait = ("--wait", str(PATIENCE_S))  # a check may take too long on a busy machine
    assert gateway.with_settings(PORT="9999").run("healthcheck", *wait).returncode == 0
    ready = gateway.run("healthcheck", "--json", *wait)
    assert (ready.returncode, json.loads(ready.stdout)["status"]) == (0, "ready")
    absent = gateway.with_settings(ATALAYA_HOME=str(tmp_path), PORT=str(free_port())).run("healthcheck")
    assert (absent.returncode, absent.stderr.count("\n")) == (1, 1)
    assert "does not respond" in absent.stderr


def test_healthcheck_waits_for_a_start(tmp_path: Path) -> None:
    """`healthcheck --wait` succeeds once the gateway is ready, and fails if that takes too long."""
    gateway = make_gateway(tmp_path, MODEL__URL="stub://")
    assert gateway.run("healthcheck", "--wait", "0.1").returncode == 1
    command = [str(ATALAYA), "healthcheck", "--wait", str(PATIENCE_S)]
    with subprocess.Popen(command, env=gateway.environment, stdout=subprocess.PIPE) as waiting:
        gateway.start()
        output, _ = waiting.communicate(timeout=PATIENCE_S)
    gateway.stop()
    assert (waiting.returncode, output.endswith(b" is ready.\n")) == (0, True)


def get_me(gateway: Gateway, token: str) -> httpx.Response:
    return httpx.get(f"{gateway.base_url}/v1/me", headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S)
