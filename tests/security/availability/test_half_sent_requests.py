"""Threat T36: many half-sent heads, forms, documents and images hold bounded memory."""

from __future__ import annotations

import base64
import json
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.api.routes.v2.bodies import INFER, describe_files
from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until

RESERVED = "atalaya_memory_reserved_bytes"
BUDGET_BYTES = 16 << 20
JPEG = {"Content-Type": "image/jpeg"}
# Without a limit the heads would take 31 MB of memory. The gateway's other work takes some megabytes meanwhile.
HEADS, HEAD_BYTES, MAX_GROWTH_BYTES = 700, 31_000, 20_000_000
DOCUMENTS = 200
# Each reserves 1.2 MB: without a limit for each caller, they would reserve half of the memory.
IMAGES, IMAGE_BYTES = 60, 100_000
# Parsing takes 30 times as much. If that were reserved too, two of one caller would exceed the limit for bodies.
INFERENCE_BYTES = 300_000


@pytest.fixture
def gateway(new_gateway: Callable[..., Gateway]) -> Iterator[Gateway]:
    """A gateway with little memory for images, and enough descriptors for many connections to it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield new_gateway(MODEL__URL="stub://", MODEL__MEMORY_MEGABYTES="16")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class HalfSent:
    """Connections from three addresses; on each, `data` is sent, the first part of a request."""

    def __init__(self, gateway: Gateway, count: int, data: bytes) -> None:
        self._gateway = gateway
        self._data = data
        self.connections = [self._open(number) for number in range(count)]

    def count_rejected(self) -> int:
        """Count the connections that have received a 503 because memory is short, and replace others that were closed.

        Half-sent requests time out after ten seconds, in which a busy machine may not have sent all of them.
        """
        rejected = 0
        for number, connection in enumerate(self.connections):
            connection.setblocking(False)
            try:
                received = connection.recv(4096, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                received = b""
            says_why = b'"memory_full"' in received or b'"temporarily_unavailable"' in received
            if received.startswith(b"HTTP/1.1 503 ") and says_why:
                rejected += 1
            else:
                connection.close()
                self.connections[number] = self._open(number)
        return rejected

    def _open(self, number: int) -> socket.socket:
        source = (f"127.0.0.{2 + number % 3}", 0)
        connection = socket.create_connection(("127.0.0.1", self._gateway.port), TIMEOUT_S, source)
        connection.sendall(self._data)
        return connection


@contextmanager
def half_sent(gateway: Gateway, count: int, data: bytes) -> Iterator[HalfSent]:
    requests = HalfSent(gateway, count, data)
    yield requests
    for connection in requests.connections:
        connection.close()


def is_served(gateway: Gateway, user: str = "ana") -> bool:
    return gateway.client(user).post("/v1/predictions", content=FOREST.read_bytes(), headers=JPEG).status_code == 200


def test_half_sent_heads_hold_bounded_memory(gateway: Gateway) -> None:
    """T36: of 700 heads of 31 KB, the gateway rejects the ones beyond its limit, and still serves other requests."""
    assert is_served(gateway)
    before = gateway.resident_bytes()
    head = b"GET /livez HTTP/1.1\r\n" + b"".join(b"X-%d: %b\r\n" % (number, b"y" * 310) for number in range(95))
    with half_sent(gateway, HEADS, head) as requests:
        wait_until(lambda: requests.count_rejected() > HEADS // 10)
        assert gateway.resident_bytes() - before < MAX_GROWTH_BYTES
        assert is_served(gateway)


@pytest.mark.parametrize(
    ("path", "content_type", "length"),
    [("/v1/me/password", "application/json", 60_000), ("/auth/token", "application/x-www-form-urlencoded", 16_000)],
    ids=["documents", "forms"],
)
def test_half_sent_documents_reserve_memory(gateway: Gateway, path: str, content_type: str, length: int) -> None:
    """T36: half-sent documents reserve at most a quarter of the memory; more get a 503, and images are still served."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {gateway.token()}\r\n"
    head += f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    client = gateway.client()
    assert client.get("/v1/me").status_code == 200  # gets a token now, because forms are rejected later
    with half_sent(gateway, DOCUMENTS, head.encode() + b"[" * 100) as requests:
        wait_until(lambda: requests.count_rejected() > DOCUMENTS // 10 and gateway.metric(RESERVED) > BUDGET_BYTES / 8)
        assert gateway.metric(RESERVED) <= BUDGET_BYTES / 4
        response = client.post("/v1/predictions", content=FOREST.read_bytes(), headers=JPEG)
        assert response.status_code == 200, response.text
    wait_until(lambda: gateway.metric(RESERVED) == 0)


def test_half_sent_images_of_one_caller_leave_memory_to_others(gateway: Gateway) -> None:
    """T36: half-sent images of one caller reserve at most a quarter of the memory; another caller is still served."""
    gateway.add_user("cleo")
    head = f"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {gateway.token()}\r\n"
    head += f"Content-Type: image/jpeg\r\nContent-Length: {IMAGE_BYTES}\r\n\r\n"
    with half_sent(gateway, IMAGES, head.encode() + bytes(IMAGE_BYTES // 2)) as requests:
        wait_until(lambda: requests.count_rejected() > IMAGES // 10 and gateway.metric(RESERVED) > BUDGET_BYTES / 8)
        assert gateway.metric(RESERVED) <= BUDGET_BYTES / 4
        assert is_served(gateway, "cleo")
    wait_until(lambda: gateway.metric(RESERVED) == 0)


def test_inference_documents_reserve_memory_to_be_parsed_once_they_have_arrived(gateway: Gateway) -> None:
    """Two half-sent documents of one caller do not reserve memory for parsing yet, and are served once complete."""
    tensor = describe_files(1, data=[base64.b64encode(FOREST.read_bytes()).decode()])
    body = json.dumps({"inputs": [tensor]}).encode().ljust(INFERENCE_BYTES)
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {gateway.token()}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {INFERENCE_BYTES}\r\nConnection: close\r\n\r\n"
    with half_sent(gateway, 2, head.encode() + body[:-1]) as requests:
        wait_until(lambda: gateway.metric(RESERVED) > 2 * 3 * INFERENCE_BYTES)
        assert gateway.metric(RESERVED) < BUDGET_BYTES / 4
        for connection in requests.connections:
            connection.sendall(body[-1:])
        responses = [connection.makefile("rb").read() for connection in requests.connections]
    assert [response.split(b" ")[1] for response in responses] == [b"200", b"200"], responses
    wait_until(lambda: gateway.metric(RESERVED) == 0)
