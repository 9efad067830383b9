"""Threat T35: image headers that take long to read delay no other request, and dry runs queue like predictions."""

from __future__ import annotations

import io
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image, PngImagePlugin

from model.imaging.decode import measure_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.support.callers import running_threads
from tests.support.gateway import DECODED, TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until

UPLOADS, AT_ONCE, CHECKS = 120, 12, 10
WAITING = "atalaya_queue_length"  # sampled twice a second


def make_slow_png() -> bytes:
    """Return a small PNG whose header has many compressed texts."""
    texts = PngImagePlugin.PngInfo()
    for number in range(15):
        texts.add_text(f"text {number}", "x" * 60_000, zip=True)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG", pnginfo=texts)
    return buffer.getvalue()


def test_slow_headers_do_not_block_the_event_loop(gateway: Gateway) -> None:
    """T35: while callers send images with slow headers, /livez does not wait until even a tenth of them are read."""
    image = make_slow_png()
    started = time.perf_counter()
    measure_image(image, DEFAULT_INPUT)
    header_s = time.perf_counter() - started
    headers = {"Authorization": f"Bearer {gateway.token()}", "Content-Type": "image/png"}

    statuses: list[int] = []
    durations: list[float] = []
    with httpx.Client(base_url=gateway.base_url, timeout=TIMEOUT_S) as client:

        def send(ended: threading.Event) -> None:
            while not ended.is_set():
                response = client.post("/v1/predictions?dry_run=true", content=image, headers=headers)
                statuses.append(response.status_code)

        with running_threads(send, AT_ONCE):
            while len(statuses) < UPLOADS or len(durations) < CHECKS:
                began = time.perf_counter()
                assert client.get("/livez").is_success
                durations.append(time.perf_counter() - began)
    assert set(statuses) <= {200, 503}
    # Not the slowest, which a single pause of a busy machine prolongs.
    assert statistics.median(durations) < 2 + header_s * UPLOADS / 10


@pytest.fixture
def slow(new_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway that makes one prediction at a time, each in twenty seconds, and lets one request wait.

    On a busy machine the test needs some of them.
    """
    queue = {"MODEL__WORKERS": "1", "MODEL__QUEUE_LIMIT": "1", "MODEL__QUEUE_SECONDS": "60"}
    limits = {"MODEL__DEADLINE_SECONDS": "300", "MODEL__STUCK_SECONDS": "600"}
    return new_gateway(MODEL__URL="stub://?latency_ms=20000", **queue, **limits)


def test_dry_runs_wait_in_the_queue(slow: Gateway) -> None:
    """T35: one dry run waits behind a running prediction, at most until its deadline; a second one is rejected."""
    client = slow.client()

    def send(path: str, **headers: str) -> httpx.Response:
        headers["Content-Type"] = "image/jpeg"
        return client.post(path, content=FOREST.read_bytes(), headers=headers)

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(send, "/v1/predictions")
        wait_until(lambda: slow.metric(DECODED) == 1)
        late = send("/v1/predictions?dry_run=true", **{"X-Request-Timeout": "0.5"})
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        wait_until(lambda: slow.metric(WAITING) == 0)
        waiting = pool.submit(send, "/v1/predictions?dry_run=true")
        wait_until(lambda: slow.metric(WAITING) == 1)
        rejected = send("/v1/predictions?dry_run=true")
        assert (rejected.status_code, rejected.json()["code"]) == (503, "overloaded")
        assert not waiting.done()
        assert waiting.result().status_code == running.result().status_code == 200
