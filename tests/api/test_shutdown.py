"""What a gateway leaves behind when it has shut down."""

from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import Settings


def _hashing_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("password")]


def test_a_shut_down_gateway_leaves_no_hashing_thread(settings: Settings, password: str) -> None:
    """The threads that hash passwords end with the gateway's lifespan."""
    form = {"grant_type": "password", "username": "ana", "password": password}
    with TestClient(create_app(settings, registry=CollectorRegistry())) as client:
        assert client.post("/auth/token", data=form).status_code == 200
        assert _hashing_threads()
    assert not _hashing_threads()
