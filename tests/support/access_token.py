"""Access tokens that do not expire during a test, however long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

import httpx

# A gateway's access tokens live for fifteen minutes unless a test changes that.
_RENEW_AFTER_S = 300.0


class FreshToken(httpx.Auth):
    """A user's access token, fetched again once it is five minutes old.

    As the `auth` of an httpx client it sets the Authorization header of each request that has none.
    """

    def __init__(self, fetch: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._fetched_at = clock()
        self._token = fetch()

    @property
    def value(self) -> str:
        """The token, valid for at least ten minutes."""
        if self._clock() - self._fetched_at > _RENEW_AFTER_S:
            self._fetched_at = self._clock()
            self._token = self._fetch()
        return self._token

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.value}"}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.setdefault("Authorization", f"Bearer {self.value}")
        yield request
