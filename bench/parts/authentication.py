"""The cost of authenticating one request: a new and a cached token, in one process with its own database."""

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

TOKENS = 1000
CACHED_CALLS = 5000
TARGET_MS = 0.15


async def measure_median_ms(call: Callable[[int], Awaitable[object]], calls: int) -> float:
    """Await `call(0)`, `call(1)`, … and return the median duration in milliseconds."""
    durations = []
    for index in range(calls):
        started = time.perf_counter()
        await call(index)
        durations.append(time.perf_counter() - started)
    return statistics.median(durations) * 1000


async def measure(folder: Path) -> None:
    """Print the median durations."""
    engine = open_engine(f"sqlite:///{folder}/bench.db")
    await migrate(engine, auth.MIGRATIONS)
    authority = TokenAuthority(
        Keyring("ES256", generate_signing_key("ES256")), TokenPolicy("https://b", "atalaya", 900)
    )

    async def verify(token: str) -> VerifiedCredential:
        principal = authority.verify(token)
        return VerifiedCredential(principal, time.time() + 900, token_targets(principal))

    authenticator = Authenticator([(lambda _: True, verify)], ChangeFeed(engine))

    def issue(index: int) -> str:
        name = f"user {index}"
        return authority.issue(subject=name, name=name, role=Role.CLIENT, scopes={Scope.PREDICT}).access_token

    tokens = [issue(index) for index in range(TOKENS)]

    def authenticate(index: int) -> Awaitable[object]:
        return authenticator.authenticate(tokens[index % TOKENS], "127.0.0.1")

    new = await measure_median_ms(authenticate, TOKENS)
    cached = await measure_median_ms(authenticate, CACHED_CALLS)
    await engine.dispose()
    print(f"{'authenticating a request':<44}{'median':>12}")
    print(f"{'  new token (ES256)':<44}{new:>9.4f} ms")
    print(f"{'  cached token':<44}{cached:>9.4f} ms   target: under {TARGET_MS} ms")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder)))


if __name__ == "__main__":
    main()
