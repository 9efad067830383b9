"""Calls from a page of another origin in Chromium to the gateway."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.servers.browser import running_chromium
from tests.support.servers.running import running

LOG_IN_AND_PREDICT = """async ([gateway, password, image]) => {
    const body = new URLSearchParams({grant_type: "password", username: "ana", password});
    const {access_token} = await (await fetch(`${gateway}/auth/token`, {method: "POST", body})).json();
    const response = await fetch(`${gateway}/v1/predictions`, {
        method: "POST",
        headers: {Authorization: `Bearer ${access_token}`, "Content-Type": "image/jpeg"},
        body: Uint8Array.from(atob(image), character => character.charCodeAt(0)),
    });
    return [response.status, (await response.json()).label, response.headers.get("X-Request-ID")];
}"""
REFUSED = "gateway => fetch(`${gateway}/v1/me`, {headers: {'X-API-Key': 'atl_x'}}).then(r => r.status, e => e.name)"


@pytest.fixture
def page() -> Iterator[Page]:
    with running_chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT_S * 1000)
        yield page


def test_only_listed_origins_can_call_the_gateway(
    new_gateway: Callable[..., Gateway], page: Page, tmp_path: Path
) -> None:
    """A page of a listed origin logs in, predicts and reads errors; on another origin, the same page reads nothing."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "index.html").write_text("<!doctype html><title>app</title>")
    handler: Any = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "app"))
    with running(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as site:
        gateway = new_gateway(CORS_ORIGINS=f"http://127.0.0.1:{site.server_port}", MODEL__URL="stub://")
        page.goto(f"http://127.0.0.1:{site.server_port}/")
        image = base64.b64encode(FOREST.read_bytes()).decode()
        status, label, request_id = page.evaluate(LOG_IN_AND_PREDICT, [gateway.base_url, PASSWORD, image])
        assert (status, bool(label), bool(request_id)) == (200, True, True)
        assert page.evaluate(REFUSED, gateway.base_url) == 401
        page.goto(f"http://localhost:{site.server_port}/")
        assert page.evaluate(REFUSED, gateway.base_url) == "TypeError"
