"""A fake HashiCorp Vault on loopback for the requests that hvac sends for logins, leases and a key-value store.

It is modelled on these, because no Vault program is available where the tests run. Any other request fails.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.servers.running import running

Response = tuple[int, dict[str, Any]]
_DENIED: Response = (403, {"errors": ["permission denied"]})


class VaultDouble(ThreadingHTTPServer):
    """Serves `secrets` at secret/atalaya; `requests` lists the received requests.

    `logins` are the accepted logins by path. Each makes a token with a lease of `lease_s` seconds; `tokens` holds the
    valid ones. Leases do not expire by themselves: tests remove tokens. `page` is sent instead, if it is set.
    While the server is not `reachable`, it closes each connection without a response.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secrets: dict[str, str] = {}
        self.logins: dict[str, dict[str, str]] = {}
        self.tokens: set[str] = set()
        self.lease_s = 3600
        self.renewable = True
        self.requests: list[str] = []
        self.page: str | None = None
        self.reachable = True

    @property
    def url(self) -> str:
        return f"vault+http://127.0.0.1:{self.server_port}/secret/atalaya"

    def respond(self, request: str, token: str | None, body: dict[str, Any]) -> Response:
        self.requests.append(request)
        method, _, path = request.partition(" ")
        if method == "POST" and path.endswith("/login"):
            return self._log_in() if self.logins.get(path) == body else _DENIED
        if token not in self.tokens:
            return _DENIED
        lease = {"lease_duration": self.lease_s, "renewable": self.renewable}
        match request:
            case "GET /v1/auth/token/lookup-self":
                return 200, {"data": {"ttl": self.lease_s, "renewable": self.renewable}}
            case "POST /v1/auth/token/renew-self":
                return (200, {"auth": lease}) if self.renewable else (400, {"errors": ["lease is not renewable"]})
            case "GET /v1/secret/data/atalaya":
                return (200, {"data": {"data": self.secrets}}) if self.secrets else (404, {"errors": []})
        return 405, {"errors": ["unsupported operation"]}

    def _log_in(self) -> Response:
        token = f"hvs.{len(self.requests)}"
        self.tokens.add(token)
        lease = {"lease_duration": self.lease_s, "renewable": self.renewable}
        return 200, {"auth": {"client_token": token, **lease}}


class _Handler(BaseHTTPRequestHandler):
    server: VaultDouble

    def do_GET(self) -> None:
        self._respond({})

    def do_POST(self) -> None:
        self._respond(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}"))

    def _respond(self, body: dict[str, Any]) -> None:
        if not self.server.reachable:
            self.close_connection = True
            return
        request = f"{self.command} {self.path.partition('?')[0]}"
        status, document = self.server.respond(request, self.headers["X-Vault-Token"], body)
        content = json.dumps(document).encode()
        if self.server.page is not None:
            status, content = 200, self.server.page.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        pass


def running_vault() -> AbstractContextManager[VaultDouble]:
    return running(VaultDouble())
