"""The npm package oidc-provider, a certified OpenID provider, as its own process on loopback."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.support.gateway import TIMEOUT_S
from tests.support.polling import PATIENCE_S
from tests.support.requirements import find_program

CALLBACK = "http://127.0.0.1/callback"


@dataclass
class OpenIDProvider:
    """A provider at a fixed address. Each start generates new keys."""

    folder: Path
    port: str
    process: subprocess.Popen[str] | None = None

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [find_program("node", packages="nodejs"), "server.mjs", self.port]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=self.folder, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        raise AssertionError(f"the provider did not start: {self.process.communicate()[1]}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.communicate(timeout=PATIENCE_S)
            self.process = None

    def fetches(self) -> int:
        """Return how often the keys have been fetched since the start."""
        count: int = httpx.get(f"{self.issuer}/fetches", timeout=TIMEOUT_S).json()["fetches"]
        return count

    def published_key(self) -> dict[str, Any]:
        key: dict[str, Any] = httpx.get(f"{self.issuer}/jwks", timeout=TIMEOUT_S).json()["keys"][0]
        return key

    def service_token(self, resource: str | None = "urn:atalaya", scope: str = "land:read") -> str:
        """Get a token with a service's secret (RFC 6749, section 4.4); without a resource it is opaque."""
        form = {"grant_type": "client_credentials", **({"resource": resource, "scope": scope} if resource else {})}
        response = httpx.post(f"{self.issuer}/token", data=form, auth=("service", "service-secret"), timeout=TIMEOUT_S)
        token: str = response.json()["access_token"]
        return token

    def log_in(self, name: str) -> dict[str, Any]:
        """Get a site's tokens for a person who logs in and consents in a browser (RFC 6749, section 4.1)."""
        query = {"client_id": "site", "response_type": "code", "redirect_uri": CALLBACK, "nonce": "n"}
        query |= {"scope": "openid land:admin", "resource": "urn:atalaya"}
        with httpx.Client(base_url=self.issuer, timeout=TIMEOUT_S) as browser:
            response = browser.get("/auth", params=query)
            for form in ({"prompt": "login", "login": name, "password": "any"}, {"prompt": "consent"}):
                response = browser.post(response.headers["location"], data=form)
                response = browser.get(response.headers["location"])
            code = parse_qs(urlsplit(response.headers["location"]).query)["code"][0]
            form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
            tokens: dict[str, Any] = browser.post("/token", data=form, auth=("site", "site-secret")).json()
        return tokens
