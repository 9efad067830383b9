"""The OpenAPI document is accurate: schemathesis, with all its checks on, finds no undocumented response."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from model.registry.files import FileRegistry
from tests.model.registry.versions import write_version
from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.paths import ROOT

pytestmark = pytest.mark.long
HERE = ROOT / "tests" / "contract"
# schemathesis uses one token from start to end, which on a slow machine may take longer than fifteen minutes.
TOKEN_LIFETIME_S = 3600
Operation = tuple[str, str]
"""Method and route."""

# These succeed only with a secret that a person has: a password or a code.
NEED_A_SECRET = {
    ("POST", "/auth/token"),
    ("POST", "/v1/me/password"),
    ("POST", "/v1/me/totp"),
    ("POST", "/v1/me/totp/confirm"),
    ("DELETE", "/v1/me/totp"),
}


def make_token(gateway: Gateway, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {gateway.token(user)}"}


def make_key(gateway: Gateway, user: str) -> dict[str, str]:
    created = gateway.run("keys", "create", "--user", user, "--name", "schemathesis", "--json")
    return {"X-API-Key": json.loads(created.stdout)["key"]}


@pytest.mark.parametrize(
    ("user", "make_credential", "examples"), [("root", make_token, 30), ("ana", make_token, 10), ("ana", make_key, 10)]
)
def test_every_response_is_documented(
    new_gateway: Callable[..., Gateway],
    tmp_path: Path,
    user: str,
    make_credential: Callable[[Gateway, str], dict[str, str]],
    examples: int,
) -> None:
    """Valid and invalid requests of an administrator and a client, alone and in sequence, get documented responses."""
    registry = FileRegistry(tmp_path / "registry")
    for version in ("1.0", "1.1"):  # the versions that the hooks name
        registry.add(write_version(tmp_path, version))
    gateway = new_gateway(
        MODEL__URL="stub://",
        MODEL__REGISTRY=f"file://{registry.root}",
        AUTH__ACCESS_TOKEN_SECONDS=str(TOKEN_LIFETIME_S),
    )
    gateway.add_user("root", "admin")
    headers = make_credential(gateway, user)
    me = gateway.get("/v1/me", headers=headers).json()
    for name in ("schemathesis.toml", "schemathesis_hooks.py"):
        shutil.copy(HERE / name, tmp_path)
    command = ["run", f"{gateway.base_url}/openapi.json", *(f"--header={': '.join(pair)}" for pair in headers.items())]
    run = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *command, "--seed", "1", "--max-examples", str(examples)],
        cwd=tmp_path,
        env={**gateway.environment, "ATALAYA_TEST_SUBJECT": me["subject"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=TOKEN_LIFETIME_S / 2,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    documented, served = read_operations(gateway), read_statuses(gateway)
    assert not documented - served.keys(), run.stdout
    if user == "root":
        succeeded = {operation for operation, statuses in served.items() if any(status < 300 for status in statuses)}
        assert not documented - succeeded - NEED_A_SECRET, run.stdout


def read_operations(gateway: Gateway) -> set[Operation]:
    """The operations in the OpenAPI document."""
    paths = gateway.get("/openapi.json").json()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


def read_statuses(gateway: Gateway) -> dict[Operation, set[int]]:
    """The statuses of each operation's responses, from the gateway's own metrics."""
    statuses = defaultdict[Operation, set[int]](set)
    for family in text_string_to_metric_families(httpx.get(gateway.metrics_url, timeout=TIMEOUT_S).text):
        for sample in family.samples:
            if sample.name == "http_server_request_duration_seconds_count":
                labels = sample.labels
                operation = labels["http_request_method"], labels["http_route"]
                statuses[operation].add(int(labels["http_response_status_code"]))
    return statuses
