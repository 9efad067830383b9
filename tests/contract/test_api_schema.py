"""The OpenAPI document is true: schemathesis, with all its checks, finds no answer that it does not tell of."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

HERE = Path(__file__).parent
PASSWORD = "correct horse battery"


@pytest.mark.parametrize(("user", "seconds"), [("root", 30), ("ana", 20)])
def test_every_answer_is_as_documented(
    new_gateway: Callable[..., Any], tmp_path: Path, user: str, seconds: int
) -> None:
    """Valid and invalid requests, alone and in a row, as an administrator and as a client: each answer is as told."""
    gateway = new_gateway(MODEL__URL="stub://")
    added = gateway.run("users", "add", "root", "--role", "admin", "--password-stdin", stdin=PASSWORD)
    assert added.returncode == 0, added.stderr
    authorization = f"Bearer {gateway.token(user)}"
    me = httpx.get(f"{gateway.base_url}/v1/me", headers={"Authorization": authorization}).json()
    for name in ("schemathesis.toml", "schemathesis_hooks.py"):
        shutil.copy(HERE / name, tmp_path)
    command = ["run", f"{gateway.base_url}/openapi.json", "--header", f"Authorization: {authorization}"]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *command, "--max-time", str(seconds), "--seed", "1"],
        cwd=tmp_path,
        env={**gateway.environment, "ATALAYA_TEST_SUBJECT": me["subject"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
