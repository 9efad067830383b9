"""The npm package oidc-provider, a certified OpenID provider, as its own process on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

FOLDER = Path(__file__).parent
CALLBACK = "http://127.0.0.1/callback"


@dataclass
class OpenIDProvider:
    """Started anew it has other keys, at the same address."""

    folder: Path
    port: str
    process: subprocess.Popen[str] | None = None

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = ["node", "server.mjs", self.port]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=self.folder, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        pytest.fail(f"the provider did not start: {self.process.communicate()[1]}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.communicate(timeout=20)
            self.process = None

    def fetches(self) -> int:
        """How often the keys were read since the start."""
        count: int = httpx.get(f"{self.issuer}/fetches").json()["fetches"]
        return count

    def published_key(self) -> dict[str, Any]:
        key: dict[str, Any] = httpx.get(f"{self.issuer}/jwks").json()["keys"][0]
        return key

    def service_token(self, resource: str | None = "urn:atalaya", scope: str = "land:read") -> str:
        """What a service gets for its secret (RFC 6749, section 4.4); without a resource it is opaque."""
        form = {"grant_type": "client_credentials", **({"resource": resource, "scope": scope} if resource else {})}
        answer = httpx.post(f"{self.issuer}/token", data=form, auth=("service", "service-secret"))
        token: str = answer.json()["access_token"]
        return token

    def log_in(self, name: str) -> dict[str, Any]:
        """What a site gets when a person has logged in and consented in a browser (RFC 6749, section 4.1)."""
        query = {"client_id": "site", "response_type": "code", "redirect_uri": CALLBACK, "nonce": "n"}
        query |= {"scope": "openid land:admin", "resource": "urn:atalaya"}
        with httpx.Client(base_url=self.issuer) as browser:
            answer = browser.get("/auth", params=query)
            for form in ({"prompt": "login", "login": name, "password": "any"}, {"prompt": "consent"}):
                answer = browser.post(answer.headers["location"], data=form)
                answer = browser.get(answer.headers["location"])
            code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
            form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
            tokens: dict[str, Any] = browser.post("/token", data=form, auth=("site", "site-secret")).json()
        return tokens


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the server and what it needs, by its lock file; no package runs a script."""
    absent = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    if shutil.which("node") is None or shutil.which("npm") is None:
        absent("node is not installed: apt-get install nodejs npm")
    folder = tmp_path_factory.mktemp("oidc")
    for name in ("package.json", "package-lock.json", "server.mjs"):
        shutil.copy(FOLDER / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        absent(f"npm ci failed: {done.stderr[-500:]}")
    return folder


@pytest.fixture(scope="session")
def openid_provider(installed: Path) -> Iterator[OpenIDProvider]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        provider = OpenIDProvider(installed, str(probe.getsockname()[1]))
    provider.start()
    yield provider
    provider.stop()


@pytest.fixture
def openid(openid_provider: OpenIDProvider) -> OpenIDProvider:
    """The running provider; a test may stop it."""
    if openid_provider.process is None:
        openid_provider.start()
    return openid_provider
