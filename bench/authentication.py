"""What authenticating one request costs, in one process on a database of its own."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import auth
from auth.authenticator import Authenticator, VerifiedCredential, token_targets
from auth.changes import ChangeFeed
from auth.principal import Role, Scope
from auth.tokens.access import TokenAuthority, TokenPolicy
from auth.tokens.jws import generate_signing_key
from auth.tokens.keyring import Keyring
from storage.engine import open_engine
from storage.migrations import migrate

ROUNDS = 5000
AIM_MS = 0.15


async def median_ms(act: Callable[[int], Awaitable[object]], rounds: int = ROUNDS) -> float:
    """The median duration of one call, in milliseconds."""
    durations = []
    for index in range(rounds):
        began = time.perf_counter()
        await act(index)
        durations.append(time.perf_counter() - began)
    return statistics.median(durations) * 1000


async def measure(folder: str) -> None:
    engine = open_engine(f"sqlite:///{folder}/bench.db")
    await migrate(engine, auth.MIGRATIONS)
    tokens = TokenAuthority(Keyring("ES256", generate_signing_key("ES256")), TokenPolicy("https://b", "atalaya", 900))

    async def verify(token: str) -> VerifiedCredential:
        principal = tokens.verify(token)
        return VerifiedCredential(principal, time.time() + 900, token_targets(principal))

    authenticator = Authenticator([(lambda _: True, verify)], ChangeFeed(engine))

    def issue(index: int) -> str:
        name = f"user {index}"
        return tokens.issue(subject=name, name=name, role=Role.CLIENT, scopes={Scope.PREDICT}).access_token

    issued = [issue(index) for index in range(1000)]
    first = await median_ms(lambda index: authenticator.authenticate(issued[index], "127.0.0.1"), len(issued))
    again = await median_ms(lambda index: authenticator.authenticate(issued[index % len(issued)], "127.0.0.1"))
    await engine.dispose()
    print(f"{'authenticating a request':<44}{'median':>12}")
    print(f"{'  a token seen for the first time (ES256)':<44}{first:>9.4f} ms")
    print(f"{'  a token seen before':<44}{again:>9.4f} ms   aim: under {AIM_MS} ms")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(str(Path(folder))))


if __name__ == "__main__":
    main()
