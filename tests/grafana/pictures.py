"""Draw the pictures of the documentation: `python -m tests.grafana.pictures [FOLDER] [--minutes 5]`.

Starts a gateway and a Prometheus, and simulates a busy day: predictions of several callers, faulty images,
password guessing, an overload, and a restart. Writes dashboard-NAME.png to FOLDER, by default docs/generated/images.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.grafana.draw import draw_dashboards, last_minutes
from tests.grafana.prometheus import running_prometheus
from tests.support import redis
from tests.support.gateway import TIMEOUT_S, Gateway, running_gateway
from tests.support.paths import ROOT, SAMPLES

CALLERS = ("ana", "bruno", "clara", "diego")
PAUSE_S = 0.25
STOP_S = 20.0
OVERLOAD_CONNECTIONS = 80
SCRAPE_INTERVAL_S = 5  # as deployed


def send_as(gateway: Gateway, caller: str, ended: threading.Event) -> None:
    """Send predictions, and at times a faulty image or a request without permission, until the event is set."""
    images = sorted(SAMPLES.glob("*.jpg"))
    while not ended.is_set():
        with suppress(httpx.HTTPError, RuntimeError):  # while the gateway is stopped
            client = gateway.client(caller)
            while not ended.wait(PAUSE_S * random.uniform(0.5, 1.5)):  # noqa: S311  (no secret)
                image = random.choice(images).read_bytes()  # noqa: S311
                response = client.post("/v1/predictions", files={"file": image})
                if response.is_success and random.random() < 0.2:  # noqa: S311
                    label = {"label": response.json()["label"]}
                    client.post(f"/v1/predictions/{response.json()['id']}/label", json=label)
                if random.random() < 0.05:  # noqa: S311
                    client.post("/predict-land-use", files={"file": b"no image"})
                    client.get("/v1/users")
                    gateway.get("/v1/me")
        ended.wait(PAUSE_S)


@contextmanager
def traffic(gateway: Gateway) -> Iterator[None]:
    """Each caller sends requests for the duration of the block."""
    ended = threading.Event()
    with ThreadPoolExecutor(len(CALLERS)) as pool:
        for caller in CALLERS:
            pool.submit(send_as, gateway, caller, ended)
        try:
            yield
        finally:
            ended.set()


def guess_passwords(gateway: Gateway, until: float) -> None:
    while time.monotonic() < until:
        gateway.log_in("olga", "wrong horse battery")


def overload(gateway: Gateway, until: float) -> None:
    """Send images over more connections than the queue has slots."""
    image, token = (SAMPLES / "yellowstone_scene.jpg").read_bytes(), gateway.token()

    def send() -> None:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
        with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=TIMEOUT_S) as client:
            while time.monotonic() < until:
                client.post("/v1/predictions", content=image)

    with ThreadPoolExecutor(OVERLOAD_CONNECTIONS) as pool:
        for _ in range(OVERLOAD_CONNECTIONS):
            pool.submit(send)


def live_through(gateway: Gateway, minutes: float) -> None:
    """Six parts of equal length: the third guesses passwords, the fourth overloads, the fifth restarts the gateway."""
    part, started = minutes * 10, time.monotonic()

    def wait(seconds: float) -> None:
        time.sleep(seconds)

    events: list[Callable[[float], None]] = [
        lambda until: guess_passwords(gateway, until),
        lambda until: overload(gateway, until - part / 3),
    ]
    wait(2 * part)
    for number, happen in enumerate(events, start=3):
        happen(started + number * part)
        wait(max(0.0, started + number * part - time.monotonic()))
    gateway.stop()
    wait(min(STOP_S, part))
    gateway.start()
    wait(max(0.0, started + 6 * part - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs" / "generated" / "images")
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        redis.running(Path(folder)) as server,
        running_gateway(REDIS_URL=server.url, MODEL__MEMORY_MEGABYTES="64") as gateway,
        running_prometheus(Path(folder) / "prometheus", gateway.metrics_url, SCRAPE_INTERVAL_S) as prometheus,
    ):
        for caller in CALLERS[1:]:
            gateway.add_user(caller)
        gateway.run("ledger", "verify")
        with traffic(gateway):
            live_through(gateway, options.minutes)
            draw_dashboards(prometheus, options.folder, last_minutes(options.minutes, SCRAPE_INTERVAL_S))


if __name__ == "__main__":
    main()
