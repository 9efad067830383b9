"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.support.polling import PATIENCE_S
from tests.support.requirements import find_program


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Run a headless browser until the context ends. Skips the test if Chromium is not installed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_program("chromium"), args=["--no-sandbox"], timeout=PATIENCE_S * 1000
        )
        yield browser
        browser.close()
