"""Line 13, and many log-ins at once, on running gateways."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

PASSWORD, WRONG = "correct horse battery", "wrong horse battery"
SAMPLE = Path(__file__).parents[2] / "samples" / "yellowstone_forest.jpg"


def log_in(gateway: Any, name: str, password: str, source: str = "127.0.0.1") -> httpx.Response:
    """Ask for a token from one of this machine's own addresses."""
    form = {"grant_type": "password", "username": name, "password": password}
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), timeout=30) as client:
        return client.post(f"{gateway.base_url}/auth/token", data=form)


def assert_slowed(answer: httpx.Response, at_most_s: int = 60) -> None:
    assert (answer.status_code, answer.json()["error"]) == (429, "temporarily_unavailable")
    assert 1 <= int(answer.headers["retry-after"]) <= at_most_s


def add_users(gateway: Any, names: list[str]) -> None:
    gateway.run("users", "add", "adam", "--role", "admin", "--password-stdin", stdin=PASSWORD)
    admin = gateway.client("adam")
    for name in names:
        body = {"name": name, "role": "client", "password": PASSWORD}
        assert admin.post("/v1/users", json=body).status_code == 201


def superiority(some: list[float], others: list[float]) -> float:
    """How likely a value of the first is above one of the second (Mann and Whitney): 0.5 where they are alike."""
    above = sum((one > other) + (one == other) / 2 for one in some for other in others)
    return above / len(some) / len(others)


def test_line_13_unknown_user_and_wrong_password_are_alike(new_gateway: Callable[..., Any]) -> None:
    """Body, headers, status and time are the same for an unknown user, a wrong password and a disabled user."""
    gateway = new_gateway(MODEL__URL="stub://")
    add_users(gateway, [f"user{number}" for number in range(15)])
    assert gateway.run("users", "disable", "user0").returncode == 0
    answers: dict[str, list[httpx.Response]] = {"user": [], "nobody": []}
    for number in range(30):
        for name, received in answers.items():
            # Each name twice and each address once: nothing has to wait yet.
            received.append(log_in(gateway, f"{name}{number % 15}", WRONG, f"127.0.{len(name)}.{number + 1}"))
    everything = [answer for received in answers.values() for answer in received]
    assert {answer.status_code for answer in everything} == {400}
    assert len({answer.content for answer in everything}) == 1
    assert len({frozenset(answer.headers) for answer in everything}) == 1
    known, unknown = [[answer.elapsed.total_seconds() for answer in received] for received in answers.values()]
    assert 0.2 < superiority(known, unknown) < 0.8, (statistics.median(known), statistics.median(unknown))


def test_line_13_guessing_is_slowed_per_account_and_per_address(new_gateway: Callable[..., Any]) -> None:
    """The fourth guess at an account, known or not, and the fourth from an address wait, in every process."""
    gateway = new_gateway(MODEL__URL="stub://")
    changes = {"PORT": gateway.free_port(), "METRICS_PORT": gateway.free_port()}
    other = type(gateway)(gateway.folder, {**gateway.environment, **changes})
    other.start()
    try:
        for name in ("ana", "nobody"):
            for number in range(3):
                source = f"127.1.{len(name)}.{number + 1}"
                assert log_in((gateway, other)[number % 2], name, WRONG, source).status_code == 400
            for process in (gateway, other):
                assert_slowed(log_in(process, name, WRONG, "127.1.9.1"), 1)
        for name in ("ben", "carl", "dora"):
            assert log_in(gateway, name, WRONG, "127.2.0.1").status_code == 400
        for process in (gateway, other):
            assert_slowed(log_in(process, "olga", PASSWORD, "127.2.0.1"), 1)
            assert log_in(process, "olga", PASSWORD, "127.2.0.2").status_code == 200
    finally:
        other.stop()


def test_line_13_an_attacker_cannot_lock_an_owner_out(new_gateway: Callable[..., Any]) -> None:
    """While guesses from elsewhere and others' from the same address have to wait, the owner logs in as ever."""
    gateway = new_gateway(MODEL__URL="stub://")
    assert log_in(gateway, "ana", PASSWORD).status_code == 200
    for number in range(20):
        log_in(gateway, "ana", WRONG, f"127.3.0.{number + 1}")
        log_in(gateway, f"nobody{number}", WRONG)
    # A wait may just have ended: then the next one begins.
    for name, source in (("ana", "127.3.9.9"), ("nobody", "127.0.0.1")):
        assert 429 in {log_in(gateway, name, WRONG, source).status_code for _ in range(2)}
    assert log_in(gateway, "ana", PASSWORD).status_code == 200


def test_line_13_a_wait_ends(new_gateway: Callable[..., Any]) -> None:
    """After as many seconds as Retry-After says the right password logs in, and clears the account."""
    gateway = new_gateway(MODEL__URL="stub://")
    for _ in range(3):
        assert log_in(gateway, "ana", WRONG).status_code == 400
    began = time.monotonic()
    while (answer := log_in(gateway, "ana", PASSWORD)).status_code == 429:
        assert_slowed(answer, 1)
        assert time.monotonic() - began < 10
    assert answer.status_code == 200
    assert [log_in(gateway, "ana", WRONG).status_code for _ in range(4)] == [400, 400, 400, 429]


async def test_line_26_log_ins_at_once_hold_up_no_predictions(new_gateway: Callable[..., Any]) -> None:
    """Of two hundred log-ins at once each is answered soon, with a token or a 429; predictions go on meanwhile."""
    gateway = new_gateway()
    headers = {"Authorization": f"Bearer {gateway.token('ana')}", "Content-Type": "image/jpeg"}
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=30) as client:
        flood = asyncio.gather(*(_log_in_cheaply(int(gateway.environment["PORT"])) for _ in range(200)))
        seconds = []
        while not flood.done() or not seconds:
            began = time.monotonic()
            predicted = await client.post("/v1/predictions", headers=headers, content=SAMPLE.read_bytes())
            seconds.append(time.monotonic() - began)
            assert predicted.status_code == 200
        answers = await flood
    assert {status for status, _, _ in answers} == {200, 429}
    assert all(b"\r\nretry-after: 1\r\n" in head for status, head, _ in answers if status == 429)
    assert max(took for _, _, took in answers) < 10
    assert max(seconds) < 5


async def _log_in_cheaply(port: int) -> tuple[int, bytes, float]:
    """Status, head and duration of a log-in: hundreds of httpx's would keep this process from the predictions."""
    form = urlencode({"grant_type": "password", "username": "ana", "password": PASSWORD})
    head = f"POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(form)}\r\n"
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}".encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    writer.close()
    return int(answer[9:12]), answer, time.monotonic() - began
