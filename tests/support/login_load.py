"""Attackers that make a gateway hash passwords without pause, and other users who log in meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlencode

from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway, running_gateway

ATTACKERS, OTHERS = ("eve", "mallory"), ("ada", "bob", "cleo", "dora")
CONNECTIONS = 8  # of each attacker
FIRST_REQUESTS = len(ATTACKERS) * CONNECTIONS
# A login takes 50 ms of a core. If a user's logins waited for all of the attackers', none would finish in time.
LOGIN_WITHIN_S = 20.0
ATTACKING_ADDRESS = "127.66.0.1"
# Without rate limits, all load reaches the slots that share the hashing between callers.
UNLIMITED = dict.fromkeys(("LIMITS__TOKEN", "LIMITS__PASSWORD", "LIMITS__REQUESTS"), "1000000/minute")


@dataclass
class LoginResults:
    """The statuses that the attackers got, and those of the other users' logins with the slowest one in seconds."""

    attackers: Counter[int] = field(default_factory=Counter)
    others: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0

    @property
    def missed(self) -> list[str]:
        """Descriptions of the missed targets."""
        aims = {
            f"logins of others ended with {dict(self.others)}": set(self.others) != {200},
            f"a login took {self.slowest_s:.1f} s": self.slowest_s > LOGIN_WITHIN_S,
            "the attackers made no requests": self.attackers.total() <= FIRST_REQUESTS,
        }
        return [aim for aim, is_missed in aims.items() if is_missed]


@dataclass(frozen=True)
class Request:
    path: str
    body: str
    media_type: str = "application/x-www-form-urlencoded"
    token: str = ""

    async def send(self, port: int, source: str) -> int:
        """Send the request on a connection of its own from one of this machine's addresses; return the status."""
        body = self.body.encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {self.media_type}\r\n"
        )
        head += f"Content-Length: {len(body)}\r\n" + (f"Authorization: Bearer {self.token}\r\n" if self.token else "")
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            writer.write(f"{head}\r\n".encode() + body)
            status = int((await reader.readline()).split()[1])
            await reader.read()
            writer.close()
        return status


def log_in(name: str, password: str = PASSWORD) -> Request:
    return Request("/auth/token", urlencode({"grant_type": "password", "username": name, "password": password}))


@contextmanager
def attacked_gateway() -> Iterator[Gateway]:
    """Run a gateway with the accounts of the attackers and of the others."""
    with running_gateway(None, MODEL__URL="stub://", **UNLIMITED) as gateway:
        gateway.add_user("adam", "admin")
        admin = gateway.client("adam")
        for name in (*ATTACKERS, *OTHERS):
            user = {"name": name, "role": "client", "password": PASSWORD}
            admin.post("/v1/users", json=user).raise_for_status()
        yield gateway


def list_attacks(gateway: Gateway) -> dict[str, Callable[[str], Request]]:
    """Return the attacks by description: each function makes the next request of a named attacker."""
    tokens = {name: gateway.token(name) for name in ATTACKERS}
    confirmation, numbers = json.dumps({"current_password": PASSWORD}), count()
    return {
        "two users confirm their passwords": lambda name: Request(
            "/v1/me/totp", confirmation, "application/json", tokens[name]
        ),
        "two users log in from one address": log_in,
        "one address tries unknown names": lambda _: log_in(f"nobody{next(numbers)}", "wrong horse battery"),
    }


async def attack(port: int, make_request: Callable[[str], Request], seconds: float) -> LoginResults:
    """Let the attackers send requests, and the other users log in again and again, for `seconds`.

    On a slow machine it takes longer: until some attackers have sent a second request, and one of the others has logged
    in.
    """
    results = LoginResults()
    until = time.monotonic() + seconds

    def is_over() -> bool:
        has_run = results.attackers.total() > FIRST_REQUESTS and results.others.total() > 0
        return has_run and time.monotonic() >= until

    async def send_repeatedly(name: str) -> None:
        while not is_over():
            results.attackers[await make_request(name).send(port, ATTACKING_ADDRESS)] += 1

    async def log_in_repeatedly(name: str, source: str) -> None:
        while not is_over():
            began = time.monotonic()
            results.others[await log_in(name).send(port, source)] += 1
            results.slowest_s = max(results.slowest_s, time.monotonic() - began)

    attackers = [send_repeatedly(name) for name in ATTACKERS for _ in range(CONNECTIONS)]
    others = [log_in_repeatedly(name, f"127.77.0.{number}") for number, name in enumerate(OTHERS, 1)]
    await asyncio.gather(*attackers, *others)
    return results
