"""Threats T13 and T26: guessing passwords, and many logins at once, on running gateways."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import httpx

from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway
from tests.support.paths import FOREST

WRONG = "wrong horse battery"
MAX_WAIT_S = 60
TIME = "%Y-%m-%d %H:%M:%S.%f"
# One login takes 50 ms of a core, 200 of them 10 s, and several times as long while other tests run. Without a queue
# limit or separate threads for passwords, logins or predictions would wait for all of them.
LOGIN_WITHIN_S, PREDICTION_WITHIN_S = 120.0, 60.0


def log_in(gateway: Gateway, name: str, password: str, source: str = "127.0.0.1") -> httpx.Response:
    """Request a token from one of this machine's own addresses."""
    form = {"grant_type": "password", "username": name, "password": password}
    # Plain HTTP: without `verify` no certificates are loaded for each request.
    transport = httpx.HTTPTransport(local_address=source, verify=False)
    with httpx.Client(transport=transport, timeout=TIMEOUT_S) as client:
        return client.post(f"{gateway.base_url}/auth/token", data=form)


def assert_slowed(response: httpx.Response, at_most_s: int) -> None:
    assert (response.status_code, response.json()["error"]) == (429, "temporarily_unavailable")
    assert 1 <= int(response.headers["retry-after"]) <= at_most_s


def lengthen_waits(gateway: Gateway) -> None:
    """Set every counter to twelve failures, the last one now, so that the waits outlast the test on a slow machine."""
    now = datetime.now(UTC).strftime(TIME)
    with closing(sqlite3.connect(gateway.database_path)) as database, database:
        database.execute("UPDATE login_failures SET failures = 12, last_at = ?", [now])


def renew_waits(gateway: Gateway) -> None:
    """Restart the waits that `lengthen_waits` has set."""
    now = datetime.now(UTC).strftime(TIME)
    with closing(sqlite3.connect(gateway.database_path)) as database, database:
        database.execute("UPDATE login_failures SET last_at = ? WHERE failures >= 12", [now])


def add_users(gateway: Gateway, names: list[str]) -> None:
    gateway.add_user("adam", "admin")
    admin = gateway.client("adam")
    for name in names:
        body = {"name": name, "role": "client", "password": PASSWORD}
        assert admin.post("/v1/users", json=body).status_code == 201


def superiority(some: list[float], others: list[float]) -> float:
    """Return the probability that one of `some` exceeds one of `others` (Mann-Whitney): 0.5 if they are alike."""
    above = sum((one > other) + (one == other) / 2 for one in some for other in others)
    return above / len(some) / len(others)


def test_an_unknown_user_and_a_wrong_password_look_alike(new_gateway: Callable[..., Gateway]) -> None:
    """T13: status, body, header names and time are the same for unknown and disabled users and wrong passwords."""
    gateway = new_gateway(MODEL__URL="stub://")
    add_users(gateway, [f"user{number}" for number in range(15)])
    assert gateway.run("users", "disable", "user0").returncode == 0
    responses: dict[str, list[httpx.Response]] = {"user": [], "nobody": []}
    for number in range(30):
        for name, received in responses.items():
            # Each name twice and each address once, which is too few failures for a wait.
            received.append(log_in(gateway, f"{name}{number % 15}", WRONG, f"127.0.{len(name)}.{number + 1}"))
    everything = [response for received in responses.values() for response in received]
    assert {response.status_code for response in everything} == {400}
    assert len({response.content for response in everything}) == 1
    assert len({frozenset(response.headers) for response in everything}) == 1
    known, unknown = [[response.elapsed.total_seconds() for response in received] for received in responses.values()]
    assert 0.2 < superiority(known, unknown) < 0.8, (statistics.median(known), statistics.median(unknown))


def test_attempts_during_a_wait_reveal_no_user(new_gateway: Callable[..., Gateway]) -> None:
    """T13: at a delayed address, guesses look alike for users who have logged in from it and for unknown names."""
    gateway = new_gateway(MODEL__URL="stub://")
    names = [f"user{number}" for number in range(10)]
    add_users(gateway, names)
    assert {log_in(gateway, name, PASSWORD).status_code for name in names} == {200}
    for number in range(3):
        assert log_in(gateway, f"someone{number}", WRONG).status_code == 400
    lengthen_waits(gateway)
    responses: dict[str, list[httpx.Response]] = {"user": [], "nobody": []}
    durations: list[float] = []
    for number in range(60):
        if number % 10 == 0:
            renew_waits(gateway)
        began = time.monotonic()
        for name, received in responses.items():
            received.append(log_in(gateway, f"{name}{number % 10}", WRONG))
        durations.append(time.monotonic() - began)
    for known, unknown, duration in zip(*responses.values(), durations, strict=True):
        assert_slowed(known, MAX_WAIT_S)
        assert known.content == unknown.content
        assert 0 <= int(known.headers["retry-after"]) - int(unknown.headers["retry-after"]) <= math.ceil(duration)
    # Three guesses at each name are checked, which must take as long for a user as for an unknown name.
    known, unknown = [[response.elapsed.total_seconds() for response in received] for received in responses.values()]
    for some, others in ((known[:30], unknown[:30]), (known[30:], unknown[30:])):
        assert 0.2 < superiority(some, others) < 0.8, (statistics.median(some), statistics.median(others))
    assert log_in(gateway, "ana", PASSWORD).status_code == 429
    assert log_in(gateway, "user0", PASSWORD, "127.4.0.1").status_code == 200


def test_an_owner_logs_in_during_a_wait(new_gateway: Callable[..., Gateway]) -> None:
    """T13: a user who has logged in from an address before can do so while the address is delayed; others cannot."""
    gateway = new_gateway(MODEL__URL="stub://")
    assert log_in(gateway, "ana", PASSWORD).status_code == 200
    for number in range(3):
        assert log_in(gateway, f"someone{number}", WRONG).status_code == 400
    lengthen_waits(gateway)
    assert log_in(gateway, "ana", WRONG).status_code == 429
    assert log_in(gateway, "ana", PASSWORD).status_code == 200
    assert log_in(gateway, "olga", PASSWORD).status_code == 429


def test_guessing_is_slowed_per_account_and_per_address(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """T13: the fourth guess at an account, known or not, and the fourth from an address get a 429 in every process."""
    gateway = new_gateway(MODEL__URL="stub://")
    replica = gateway.replica(tmp_path / "replica")
    replica.start()
    try:
        for name in ("ana", "nobody"):
            for number in range(3):
                source = f"127.1.{len(name)}.{number + 1}"
                assert log_in((gateway, replica)[number % 2], name, WRONG, source).status_code == 400
            lengthen_waits(gateway)
            for process in (gateway, replica):
                assert_slowed(log_in(process, name, WRONG, "127.1.9.1"), MAX_WAIT_S)
        for name in ("ben", "carl", "dora"):
            assert log_in(gateway, name, WRONG, "127.2.0.1").status_code == 400
        lengthen_waits(gateway)
        for process in (gateway, replica):
            assert_slowed(log_in(process, "olga", PASSWORD, "127.2.0.1"), MAX_WAIT_S)
            assert log_in(process, "olga", PASSWORD, "127.2.0.2").status_code == 200
    finally:
        replica.stop()


def test_an_attacker_cannot_lock_an_owner_out(new_gateway: Callable[..., Gateway]) -> None:
    """T13: guesses from other addresses, and at other accounts from the owner's address, do not slow the owner down."""
    gateway = new_gateway(MODEL__URL="stub://")
    assert log_in(gateway, "ana", PASSWORD).status_code == 200
    for number in range(20):
        log_in(gateway, "ana", WRONG, f"127.3.0.{number + 1}")
        log_in(gateway, f"nobody{number}", WRONG)
    lengthen_waits(gateway)
    for name, source in (("ana", "127.3.9.9"), ("nobody", "127.0.0.1")):
        assert log_in(gateway, name, WRONG, source).status_code == 429
    assert log_in(gateway, "ana", PASSWORD).status_code == 200


def test_a_wait_ends(new_gateway: Callable[..., Gateway]) -> None:
    """T13: after the seconds in Retry-After the correct password logs in and clears the failures of the account."""
    gateway = new_gateway(MODEL__URL="stub://")
    for _ in range(3):
        assert log_in(gateway, "ana", WRONG).status_code == 400
    began = time.monotonic()
    while (response := log_in(gateway, "ana", PASSWORD)).status_code == 429:
        assert_slowed(response, at_most_s=1)
        assert time.monotonic() - began < TIMEOUT_S
    assert response.status_code == 200
    assert [log_in(gateway, "ana", WRONG).status_code for _ in range(3)] == [400, 400, 400]
    lengthen_waits(gateway)
    assert log_in(gateway, "ana", WRONG).status_code == 429


async def test_many_logins_do_not_delay_predictions(new_gateway: Callable[..., Gateway]) -> None:
    """T26: each of 200 concurrent logins soon gets a token or a 429, and predictions continue meanwhile."""
    gateway = new_gateway()
    headers = {"Authorization": f"Bearer {gateway.token()}", "Content-Type": "image/jpeg"}
    durations: list[float] = []
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=TIMEOUT_S) as client:
        logins = asyncio.gather(*(_log_in_cheaply(gateway.port) for _ in range(200)))
        while not logins.done() or not durations:
            began = time.monotonic()
            predicted = await client.post("/v1/predictions", headers=headers, content=FOREST.read_bytes())
            durations.append(time.monotonic() - began)
            assert predicted.status_code == 200
        responses = await logins
    assert {status for status, _, _ in responses} == {200, 429}
    assert all(b"\r\nretry-after: 1\r\n" in head for status, head, _ in responses if status == 429)
    assert max(seconds for _, _, seconds in responses) < LOGIN_WITHIN_S
    assert max(durations) < PREDICTION_WITHIN_S


async def _log_in_cheaply(port: int) -> tuple[int, bytes, float]:
    """Return the status, head and duration of a login; hundreds of httpx clients would delay the predictions."""
    form = urlencode({"grant_type": "password", "username": "ana", "password": PASSWORD})
    head = f"POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(form)}\r\n"
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}".encode())
    response = (await reader.readuntil(b"\r\n\r\n")).lower()
    writer.close()
    return int(response[9:12]), response, time.monotonic() - began
