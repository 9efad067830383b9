"""The pages of the gateway in Chromium."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway
from tests.support.paths import FOREST, ROOT
from tests.support.requirements import find_program, missing
from tests.support.servers.browser import running_chromium

SWAGGER_UI = ROOT / "api" / "routes" / "pages" / "swagger_ui"
PREDICTION = "#operations-predictions-create_prediction_v1_predictions_post"


@pytest.fixture
def page() -> Iterator[Page]:
    """A page that fails the test if it logs an error, or if a request of it fails, as any beyond loopback does."""
    problems: list[str] = []
    with running_chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 1400})
        page.set_default_timeout(TIMEOUT_S * 1000)
        expect.set_options(timeout=TIMEOUT_S * 1000)  # it has a default of its own
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url))
        yield page
    assert problems == []


def test_the_start_page(gateway: Gateway, page: Page) -> None:
    """The start page shows the gateway's name, whether it is ready, how to get a token, and links that work."""
    page.goto(f"{gateway.base_url}/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Atalaya")
    expect(page.locator(".status")).to_have_text("ready")
    expect(page.locator("pre").first).to_contain_text("/auth/token -d grant_type=password")
    assert (
        page.locator("main").evaluate("element => getComputedStyle(element).maxWidth") == "704px"
    )  # its style applies
    for link in page.get_by_role("link").all():
        address = link.evaluate("element => element.href")
        assert httpx.get(address, timeout=TIMEOUT_S).is_success, address


def test_the_documentation(gateway: Gateway, page: Page) -> None:
    """On /docs a user can log in, upload an image and see its prediction."""
    page.goto(f"{gateway.base_url}/docs")
    expect(page.get_by_role("heading", name="Atalaya")).to_be_visible()
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".auth-container").first
    dialog.get_by_label("username:").fill("ana")
    dialog.get_by_label("password:").fill(PASSWORD)
    dialog.get_by_text("Authorize", exact=True).click()
    expect(dialog.get_by_text("Logout", exact=True)).to_be_visible()
    page.locator(".close-modal").click()
    operation = page.locator(PREDICTION)
    operation.locator(".opblock-summary-control").click()
    operation.locator("input[type=file]").set_input_files(FOREST)
    operation.get_by_role("button", name="Execute").click()
    response = operation.locator(".live-responses-table")
    expect(response.locator(".response-col_status").last).to_contain_text("200")
    expect(response).to_contain_text(hashlib.sha256(FOREST.read_bytes()).hexdigest())


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_allow_no_inline_script(gateway: Gateway, path: str) -> None:
    """The content security policy of each page allows neither inline code nor other hosts."""
    policy = gateway.get(path, headers={"Accept": "text/html"}).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/json", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("*/*", "text/html; charset=utf-8"),
    ],
)
def test_the_start_page_as_json(gateway: Gateway, accept: str, media_type: str) -> None:
    """A client that prefers JSON gets the status and the links as JSON; others get HTML."""
    response = gateway.get("/", headers={"Accept": accept})
    assert response.headers["content-type"] == media_type
    if media_type == "application/json":
        assert response.json()["status"] == "ready"
        for path in response.json()["links"].values():
            assert gateway.get(path).is_success, path


def test_swagger_ui_is_the_published_package(tmp_path: Path) -> None:
    """The files of Swagger UI equal those of the npm package with the locked version and integrity."""
    locked = json.loads((SWAGGER_UI / "package-lock.json").read_text())["packages"]["node_modules/swagger-ui-dist"]
    command = [find_program("npm", packages="nodejs npm"), "pack", f"swagger-ui-dist@{locked['version']}", "--silent"]
    packed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    if packed.returncode:
        missing(f"npm pack failed: {packed.stderr[-500:]}")
    archive = tmp_path / packed.stdout.strip()
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    assert locked["integrity"] == f"sha512-{digest}"
    vendored = {path.name for path in SWAGGER_UI.iterdir()} - {"package.json", "package-lock.json"}
    with tarfile.open(archive) as published:
        for name in vendored:
            member = published.extractfile(f"package/{name}")
            assert member is not None
            assert member.read() == (SWAGGER_UI / name).read_bytes(), name
    assert {"swagger-ui-bundle.js", "swagger-ui.css", "LICENSE", "NOTICE"} <= vendored
