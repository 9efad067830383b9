"""Threat T69: passwords that take long to normalise."""

from __future__ import annotations

import time
import unicodedata
from pathlib import Path

from tests.support.gateway import PASSWORD, Gateway, make_gateway
from tests.support.linux.processes import cpu_seconds

COSTLY = "a" + "\u0344" * 12_000 + "\u0323" * 12_000


def test_a_costly_password_is_rejected_before_it_is_normalised(gateway: Gateway) -> None:
    """T69: to reject a new password of combining marks takes a quarter of the processor time of normalising it."""
    body = {"current_password": PASSWORD, "new_password": COSTLY}
    headers = {"Authorization": f"Bearer {gateway.token()}"}
    started_s = time.process_time()
    unicodedata.normalize("NFKC", COSTLY)
    normalising_s = time.process_time() - started_s
    before_s = cpu_seconds(gateway.pid)
    response = gateway.post("/v1/me/password", json=body, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "password_refused")
    assert cpu_seconds(gateway.pid) - before_s < normalising_s / 4


def test_a_costly_password_at_a_log_in_is_a_wrong_one(tmp_path: Path) -> None:
    """T69: a login with combining marks gets the same response as one with any wrong password."""
    gateway = make_gateway(tmp_path, MODEL__URL="stub://")  # whose logins no other test has slowed down
    gateway.start()
    try:
        wrong, costly = gateway.log_in("nobody", "x"), gateway.log_in("nobody", COSTLY[-2500:])
    finally:
        gateway.stop()
    assert (costly.status_code, costly.json()) == (wrong.status_code, wrong.json())
    assert costly.json()["error"] == "invalid_grant"
