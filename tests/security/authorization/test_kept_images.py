"""Threat T65: whose images are kept, in which form, and until when, on a running gateway."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.commands.output import format_erased_images
from tests.security.authorization.predictions import predict
from tests.support.gateway import TIMEOUT_S, Gateway, make_gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a store of images and the users `ana`, `cleo`, `dora` and `eva` (clients)."""
    folder = tmp_path_factory.mktemp("kept")
    key = b64encode(os.urandom(32)).decode()
    gateway = make_gateway(folder, MODEL__URL="stub://", IMAGES__URL=f"file://{folder}/images", IMAGES__KEY=key)
    gateway.add_user("cleo")
    gateway.add_user("dora")
    gateway.add_user("eva")
    gateway.start()
    # The first upkeep also removes images of deleted users, which would change what `users delete` reports.
    wait_until(lambda: "images_removed" in gateway.log(), message=gateway.log)
    yield gateway
    assert gateway.stop() == 0, gateway.log()


def allow(client: httpx.Client, keep: bool) -> httpx.Response:
    return client.put("/v1/me/images", json={"keep": keep})


def list_kept(gateway: Gateway, client: httpx.Client) -> list[Path]:
    """Return the files of the caller's images."""
    owner = client.get("/v1/me").json()["subject"]
    return sorted((gateway.folder / "images").glob(f"{owner}/[!.]*"))


def keep_one(gateway: Gateway, client: httpx.Client) -> None:
    """Allow keeping, and predict until an image is kept: permission takes effect shortly after the response.

    More images may be written after the return.
    """
    assert allow(client, keep=True).json() == {"keep": True, "keep_days": 365}

    before = len(list_kept(gateway, client))

    def is_kept() -> bool:
        predict(client)
        return len(list_kept(gateway, client)) > before

    wait_until(is_kept)


def test_nothing_is_kept_without_permission(gateway: Gateway) -> None:
    """T65: a user's images are kept only with the user's permission, which an API key cannot give."""
    client = gateway.client("dora")
    key = client.post("/v1/keys", json={"name": "script", "scopes": ["predict"]}).json()["key"]
    url, headers = f"{gateway.base_url}/v1/me/images", {"X-API-Key": key}
    refused = httpx.put(url, headers=headers, json={"keep": True}, timeout=TIMEOUT_S)
    assert (refused.status_code, refused.json()["code"]) == (403, "key_bound")
    predict(client)
    keep_one(gateway, gateway.client("cleo"))  # an image of a later prediction was written
    assert list_kept(gateway, client) == []


def test_kept_images_are_encrypted(gateway: Gateway) -> None:
    """T65: the stored files are private and encrypted, and their paths do not contain the user's name."""
    client = gateway.client()
    keep_one(gateway, client)
    for path in list_kept(gateway, client):
        assert path.stat().st_mode & 0o777 == 0o600
        assert FOREST.read_bytes()[:16] not in path.read_bytes()
        assert "ana" not in str(path.relative_to(gateway.folder))


def test_withdrawing_erases(gateway: Gateway) -> None:
    """T65: when a user withdraws the permission, only that user's images are erased, and no further ones are kept."""
    client, cleo = gateway.client(), gateway.client("cleo")
    keep_one(gateway, client)
    keep_one(gateway, cleo)
    others = list_kept(gateway, cleo)
    assert allow(client, keep=False).json() == {"keep": False, "keep_days": 365}
    wait_until(lambda: not list_kept(gateway, client))
    predict(client)
    keep_one(gateway, cleo)
    assert list_kept(gateway, client) == []
    assert set(others) <= set(list_kept(gateway, cleo))


def test_deleting_a_user_erases(gateway: Gateway) -> None:
    """T65: the command that deletes a user erases only that user's images, and reports how many."""
    client, cleo = gateway.client("eva"), gateway.client("cleo")
    keep_one(gateway, client)
    keep_one(gateway, cleo)  # images are written in order: all of eva's were written
    kept, others = list_kept(gateway, client), list_kept(gateway, cleo)
    deleted = gateway.run("users", "delete", "eva", "--yes")
    assert f"and {format_erased_images(len(kept))}." in deleted.stdout
    assert not any(path.exists() for path in kept)
    assert all(path.exists() for path in others)
