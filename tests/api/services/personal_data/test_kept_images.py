"""Keeping images of users who allow it, through a gateway with a store in a folder."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from starlette.testclient import TestClient
from structlog.testing import capture_logs

import auth
from api.app import create_app
from api.commands.database import run_with_accounts
from api.errors import SettingsError
from api.services.background import run_in_background
from api.services.personal_data import erasure
from api.services.personal_data.archive import open_image_archive
from api.services.personal_data.consents import ImageConsents
from api.services.personal_data.keeper import ImageKeeper
from api.settings import Settings
from auth.changes import ChangeFeed
from auth.principal import Role
from monitoring.metrics import Metrics
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.images.archive import ImageArchive
from storage.migrations import migrate
from tests.support.polling import PATIENCE_S, wait_until, wait_until_async

Headers = dict[str, str]


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "IN_FLIGHT_S", 0.0)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a store; the database also has the administrator `adam`."""
    run_with_accounts(settings, lambda accounts: accounts.add("adam", Role.ADMIN, "correct horse battery"))
    images = {"url": f"file://{tmp_path}/images", "key": SecretStr(b64encode(os.urandom(32)).decode())}
    return settings.model_copy(update={"images": settings.images.model_copy(update=images)})


@pytest.fixture
def archive(settings: Settings) -> ImageArchive:
    archive = open_image_archive(settings)
    assert archive is not None
    return archive


def predict(client: TestClient, headers: Headers, image: bytes) -> str:
    response = client.post("/v1/predictions", content=image, headers={**headers, "Content-Type": "image/jpeg"})
    assert response.status_code == 200, response.text
    prediction_id: str = response.json()["id"]
    return prediction_id


def allow(client: TestClient, headers: Headers, *, keep: bool = True) -> None:
    response = client.put("/v1/me/images", headers=headers, json={"keep": keep})
    assert response.json() == {"keep": keep, "keep_days": 365}


def find_user_id(client: TestClient, headers: Headers) -> str:
    subject: str = client.get("/v1/me", headers=headers).json()["subject"]
    return subject


def keep_first(client: TestClient, headers: Headers, image: bytes, archive: ImageArchive) -> str:
    """Predict until an image is kept: the permission takes effect a moment after the response."""
    owner, predictions = find_user_id(client, headers), list[str]()

    def find_kept() -> str | None:
        predictions.append(predict(client, headers, image))
        return next((each for each in predictions if archive.read(owner, each) is not None), None)

    wait_until(find_kept)
    kept = find_kept()
    assert kept is not None
    return kept


def test_images_are_kept_only_with_permission(
    client: TestClient, bearer: Headers, sample: bytes, archive: ImageArchive
) -> None:
    """By default no image is kept; once a user allows it, the images of that user's predictions are."""
    assert client.get("/v1/me/images", headers=bearer).json() == {"keep": False, "keep_days": 365}
    predict(client, bearer, sample)
    allow(client, bearer)
    prediction_id = keep_first(client, bearer, sample, archive)
    assert archive.read(find_user_id(client, bearer), prediction_id) == sample


def test_an_administrator_decides_for_a_user(
    client: TestClient, bearer: Headers, log_in: Any, sample: bytes, archive: ImageArchive
) -> None:
    """An administrator can give and withdraw a user's consent; the audit log records both."""
    admin, user_id = log_in(client, "adam"), find_user_id(client, bearer)
    response = client.patch(f"/v1/users/{user_id}", headers=admin, json={"keep_images": True})
    assert (response.status_code, response.json()["keep_images"]) == (200, True)
    keep_first(client, bearer, sample, archive)
    client.patch(f"/v1/users/{user_id}", headers=admin, json={"keep_images": False})
    wait_until(lambda: archive.measure() == 0)
    fields = [entry["detail"].get("fields") for entry in client.get("/v1/audit", headers=admin).json()["entries"]]
    assert fields.count("keep_images") == 2


def test_an_erasure_outlasts_its_request(settings: Settings, log_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that withdraw consent or delete a user end before the erasure, which a shutdown cancels."""
    monkeypatch.setattr(erasure, "IN_FLIGHT_S", PATIENCE_S)
    started = time.monotonic()
    with TestClient(create_app(settings, registry=CollectorRegistry())) as client:
        bearer, admin = log_in(client), log_in(client, "adam")
        allow(client, bearer, keep=False)
        path = f"/v1/users/{find_user_id(client, bearer)}"
        assert client.delete(path, headers=admin).status_code == 204
    assert time.monotonic() - started < PATIENCE_S


def test_a_failing_store_fails_no_prediction(settings: Settings, log_in: Any, sample: bytes, tmp_path: Path) -> None:
    """Predictions continue while the store cannot be written, and an image that is not kept is counted."""
    (tmp_path / "images").touch()
    registry = CollectorRegistry()
    with TestClient(create_app(settings, registry=registry)) as client:
        bearer = log_in(client)
        allow(client, bearer)

        def has_failed() -> bool:
            predict(client, bearer, sample)
            return bool(registry.get_sample_value("atalaya_images_not_kept_total", {"reason": "failed"}))

        wait_until(has_failed)


def make_keeper(
    archive: ImageArchive, megabytes: float = 1, allows: Callable[[str], bool] = lambda _: True, **options: Any
) -> tuple[ImageKeeper, CollectorRegistry]:
    registry = CollectorRegistry()
    return ImageKeeper(archive, allows, int(megabytes * 1e6), Metrics(registry), **options), registry


def count(registry: CollectorRegistry, reason: str) -> float:
    return registry.get_sample_value("atalaya_images_not_kept_total", {"reason": reason}) or 0.0


OWNER, PREDICTION = "0a54f4b8-bc9a-4019-bf0d-15032078e849", "019f0000-bc9a-7019-bf0d-15032078e849"


def test_a_full_store(archive: ImageArchive) -> None:
    """A full store keeps what it has, and the next image is not kept."""
    keeper, registry = make_keeper(archive, 0.005)
    for last, size in ((0, 900), (1, 4200)):
        keeper.keep_later(OWNER, f"{PREDICTION[:-1]}{last}", bytes(size))
    wait_until(lambda: count(registry, "full") == 1)  # closing the keeper waits for only two seconds
    keeper.close()
    assert archive.read(OWNER, f"{PREDICTION[:-1]}0") == bytes(900)


def test_a_slow_store(archive: ImageArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a store is slow, images wait up to a limit in bytes; an image that would exceed it is counted, not kept."""
    monkeypatch.setattr("api.services.personal_data.keeper.BACKLOG_BYTES", 1000)
    go_on = threading.Event()

    def allow_slowly(_: str) -> bool:
        return go_on.wait(PATIENCE_S)

    keeper, registry = make_keeper(archive, allows=allow_slowly)
    predictions = [f"{PREDICTION[:-1]}{number}" for number in range(4)]
    for prediction, size in zip(predictions, (600, 400, 1, 1), strict=True):
        keeper.keep_later(OWNER, prediction, bytes(size))
    assert count(registry, "backlog") == 2
    go_on.set()
    wait_until(lambda: registry.get_sample_value("atalaya_images_kept_total") == 2)

    def keep_last() -> bool:
        """Keep an image once the others no longer wait, which is a moment after they were counted."""
        dropped = count(registry, "backlog")
        keeper.keep_later(OWNER, predictions[3], bytes(1000))
        return count(registry, "backlog") == dropped

    wait_until(keep_last)
    wait_until(lambda: registry.get_sample_value("atalaya_images_kept_total") == 3)
    keeper.close()
    kept = [archive.read(OWNER, prediction) for prediction in predictions]
    assert kept == [bytes(600), bytes(400), None, bytes(1000)]


def test_a_withdrawal_while_an_image_is_written(archive: ImageArchive) -> None:
    """An image is removed again if its owner withdraws consent while it is written, because the erasure missed it."""
    permissions = [True, False]
    keeper, registry = make_keeper(archive, allows=lambda _: permissions.pop(0))
    keeper.keep_later(OWNER, PREDICTION, b"image")
    wait_until(lambda: not permissions and archive.measure() == 0)  # closing the keeper waits for only two seconds
    keeper.close()
    assert registry.get_sample_value("atalaya_images_kept_total") == 0


def test_a_store_at_its_limit_is_logged_once(archive: ImageArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that are alternately kept and dropped are logged once, and the recovery after a minute without drops."""
    monkeypatch.setattr("api.services.personal_data.keeper.BACKLOG_BYTES", 1000)
    now = 0.0
    keeper, registry = make_keeper(archive, clock=lambda: now)

    def keep(number: int) -> None:
        keeper.keep_later(OWNER, f"{PREDICTION[:-1]}{number}", b"image")
        wait_until(lambda: registry.get_sample_value("atalaya_images_kept_total") == number)

    with capture_logs() as logs:
        for number in (1, 2, 3):
            keeper.keep_later(OWNER, PREDICTION, bytes(1001))
            keep(number)
        now = 60.0
        keep(4)
        keeper.close()
    assert [line["event"] for line in logs] == ["image_not_kept", "images_kept_again"]


async def test_permissions_are_read_again_after_a_failure() -> None:
    """While users cannot be read, a changed user counts as not consenting; afterwards the database decides."""
    results: list[Any] = [{"ana", "bob"}, DatabaseUnavailable("down"), {"ana", "bob"}]
    reads = 0

    async def list_allowed() -> set[str]:
        nonlocal reads
        reads += 1
        result = results.pop(0) if len(results) > 1 else results[0]
        if isinstance(result, Exception):
            raise result
        return set(result)

    consents = ImageConsents(list_allowed)
    async with run_in_background(consents.follow(lambda _: asyncio.sleep(0))):
        await wait_until_async(lambda: consents.allows("ana"))
        consents.notice_change("user:ana")
        assert (consents.allows("ana"), consents.allows("bob")) == (False, True)
        await wait_until_async(lambda: consents.allows("ana"))
    assert reads == 3


async def test_permissions_are_read_again_after_a_gap(database_url: str) -> None:
    """A withdrawal whose row expired while this process did not read changes still takes effect."""
    allowed = {"ana", "bob"}

    async def list_allowed() -> set[str]:
        return set(allowed)

    engine = open_engine(database_url)
    await migrate(engine, auth.MIGRATIONS)
    changes, consents = ChangeFeed(engine), ImageConsents(list_allowed)
    consents.subscribe_to(changes)
    async with run_in_background(consents.follow(lambda _: asyncio.sleep(0))):
        await wait_until_async(lambda: consents.allows("ana"))
        changes.pause()
        allowed.remove("ana")
        await changes.ensure_current()
        assert not consents.allows("ana")
        await wait_until_async(lambda: consents.allows("bob"))
        assert not consents.allows("ana")
    await engine.dispose()


async def test_permissions_are_read_again_after_any_error() -> None:
    """An error that is not an unavailable database does not end the following either."""
    results: list[Any] = [ValueError("unexpected"), {"ana"}]

    async def list_allowed() -> set[str]:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return set(result)

    consents = ImageConsents(list_allowed)
    with capture_logs() as logs:
        async with run_in_background(consents.follow(lambda _: asyncio.sleep(0))):
            await wait_until_async(lambda: consents.allows("ana"))
    assert [line["event"] for line in logs] == ["image_consents_not_read"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"images": {"key": None}}, "IMAGES__KEY is not set"),
        ({"ledger": {"enabled": False}}, "IMAGES__URL needs LEDGER__ENABLED"),
    ],
)
def test_settings_that_contradict(settings: Settings, changes: dict[str, dict[str, Any]], problem: str) -> None:
    """A store without a key, or without the ledger, is a settings error."""
    groups = {name: getattr(settings, name).model_copy(update=update) for name, update in changes.items()}
    with pytest.raises(SettingsError, match=problem):
        open_image_archive(settings.model_copy(update=groups))
