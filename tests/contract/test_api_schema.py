"""The OpenAPI document is true: schemathesis, with all its checks, finds no answer that it does not tell of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

HERE = Path(__file__).parent
PASSWORD = "correct horse battery"
# These succeed with a secret alone that only a person has: a password, a code.
GUARDED = {
    ("POST", "/auth/token"),
    ("POST", "/v1/me/password"),
    ("POST", "/v1/me/totp"),
    ("POST", "/v1/me/totp/confirm"),
    ("DELETE", "/v1/me/totp"),
}


def token_of(gateway: Any, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {gateway.token(user)}"}


def key_of(gateway: Any, user: str) -> dict[str, str]:
    made = gateway.run("keys", "create", "--user", user, "--name", "schemathesis", "--json")
    return {"X-API-Key": json.loads(made.stdout)["key"]}


@pytest.mark.parametrize(("user", "credential"), [("root", token_of), ("ana", token_of), ("ana", key_of)])
def test_every_answer_is_as_documented(
    new_gateway: Callable[..., Any],
    tmp_path: Path,
    user: str,
    credential: Callable[[Any, str], dict[str, str]],
) -> None:
    """Valid and invalid requests, alone and in a row, as an administrator and as a client: each answer is as told."""
    gateway = new_gateway(MODEL__URL="stub://")
    added = gateway.run("users", "add", "root", "--role", "admin", "--password-stdin", stdin=PASSWORD)
    assert added.returncode == 0, added.stderr
    headers = credential(gateway, user)
    me = httpx.get(f"{gateway.base_url}/v1/me", headers=headers).json()
    for name in ("schemathesis.toml", "schemathesis_hooks.py"):
        shutil.copy(HERE / name, tmp_path)
    command = ["run", f"{gateway.base_url}/openapi.json", *(f"--header={': '.join(one)}" for one in headers.items())]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *command, "--seed", "1"],
        cwd=tmp_path,
        env={**gateway.environment, "ATALAYA_TEST_SUBJECT": me["subject"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told, seen = operations(gateway), answers(gateway)
    assert not told - seen.keys(), done.stdout
    if user == "root":
        succeeded = {operation for operation, statuses in seen.items() if any(status < 300 for status in statuses)}
        assert not told - succeeded - GUARDED, done.stdout


def operations(gateway: Any) -> set[tuple[str, str]]:
    """Method and route of each operation in the OpenAPI document."""
    paths = httpx.get(f"{gateway.base_url}/openapi.json").json()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


def answers(gateway: Any) -> dict[tuple[str, str], set[int]]:
    """With which statuses each operation was answered, by the gateway's own count."""
    seen = defaultdict[tuple[str, str], set[int]](set)
    for family in text_string_to_metric_families(httpx.get(gateway.metrics_url).text):
        for sample in family.samples:
            if sample.name == "http_server_request_duration_seconds_count":
                labels = sample.labels
                operation = labels["http_request_method"], labels["http_route"]
                seen[operation].add(int(labels["http_response_status_code"]))
    return seen
