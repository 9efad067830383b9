"""Draw dashboards from the data of a running Prometheus: `python -m tests.grafana.draw URL FOLDER [NAME…]`.

Writes FOLDER/dashboard-NAME.png for each dashboard, in Chromium. `--minutes` is the time range, which ends now.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from PIL import Image

from tests.grafana.boards import NAMES, Window
from tests.grafana.page import WIDTH, render_page
from tests.grafana.prometheus import Prometheus
from tests.support.servers.browser import running_chromium

_SAMPLES = 240


def draw_dashboards(prometheus: Prometheus, folder: Path, window: Window, names: Sequence[str] = NAMES) -> None:
    """Write a picture of each dashboard. Raises AssertionError if Prometheus rejects a query."""
    with running_chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH + 16, "height": 600})
        for name in names:
            page.set_content(render_page(prometheus, name, window))
            picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
            picture.save(folder / f"dashboard-{name}.png", optimize=True)


def last_minutes(minutes: float, scrape_interval_s: int) -> Window:
    """The time range that ends now, with the resolution and $__rate_interval that Grafana would choose."""
    end, seconds = time.time(), minutes * 60
    step = max(float(scrape_interval_s), seconds / _SAMPLES)
    return Window(end - seconds, end, step, max(10, 4 * scrape_interval_s, round(step) + scrape_interval_s))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of Prometheus")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--scrape-interval", type=int, default=5, help="in seconds")
    options = parser.parse_args()
    with httpx.Client(base_url=options.url, trust_env=False, timeout=60) as client:
        draw_dashboards(
            Prometheus(client), options.folder, last_minutes(options.minutes, options.scrape_interval), options.names
        )


if __name__ == "__main__":
    main()
