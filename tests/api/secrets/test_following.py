"""What a running gateway does when secrets change, are unusable, or cannot be read."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from api.production import find_secret_problems
from api.services.secrets.following import ApplySecret, SecretFollower
from api.settings import Settings, SettingsReader, load_settings
from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key
from monitoring.metrics import Metrics


class Watched:
    """A follower of the secrets in a folder; `used` has the names of the secrets that were passed to services."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: list[str] = []
        self.registry = CollectorRegistry()
        settings = load_settings()
        appliers = {name: self.make_applier(name) for name in ("AUTH__SIGNING_KEY", "SENTRY_DSN", "DATABASE_URL")}
        self.reader = SettingsReader(settings, find_secret_problems)
        self.follower = SecretFollower(settings, self.reader, appliers, Metrics(self.registry))

    def make_applier(self, name: str) -> ApplySecret:
        async def apply(_: Settings) -> bool:
            self.used.append(name)
            if name == "SENTRY_DSN":
                raise RuntimeError("a service that fails")
            return name != "DATABASE_URL"

        return apply

    def count(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("atalaya_secret_reads_total", {"outcome": outcome})

    async def refresh(self) -> list[str]:
        """Read the secrets once, and return the events that were logged."""
        with capture_logs() as logs:
            await self.follower.refresh()
        return [entry["event"] for entry in logs]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "AUTH__SIGNING_KEY").write_text(generate_signing_key("ES256"))
    (folder / "LEDGER__SIGNING_KEY").write_text(new_private_key())
    monkeypatch.setenv("SECRETS__URL", f"file://{folder}")
    return Watched(folder)


async def test_a_changed_secret_is_used_once(watched: Watched) -> None:
    """Only a changed secret is passed to its service, and only once."""
    assert await watched.refresh() == []
    (watched.folder / "AUTH__SIGNING_KEY").write_text(generate_signing_key("ES256"))
    assert await watched.refresh() == ["secret_changed"]
    assert await watched.refresh() == []
    assert watched.used == ["AUTH__SIGNING_KEY"]
    assert watched.count("read") == 3


async def test_a_rejected_value_rejects_the_whole_set(watched: Watched) -> None:
    """If one value is unusable, no secret changes; the rejection is counted at each read and logged once."""
    (watched.folder / "AUTH__SIGNING_KEY").write_text(generate_signing_key("ES256"))
    (watched.folder / "LEDGER__SIGNING_KEY").write_text("short")
    assert await watched.refresh() == ["secrets_rejected"]
    assert await watched.refresh() == []
    assert (watched.used, watched.count("rejected")) == ([], 2)
    (watched.folder / "LEDGER__SIGNING_KEY").write_text(new_private_key())
    assert await watched.refresh() == ["secrets_read_again", "secret_changed", "secret_needs_restart"]


async def test_an_unavailable_provider(watched: Watched) -> None:
    """While the provider is unavailable no secret changes; the failure is counted at each read and logged once."""
    moved = watched.folder.rename(watched.folder.with_name("moved"))
    assert await watched.refresh() == ["secrets_unavailable"]
    assert await watched.refresh() == []
    assert (watched.used, watched.count("unavailable")) == ([], 2)
    moved.rename(watched.folder)
    assert await watched.refresh() == ["secrets_read_again"]


async def test_a_service_that_fails_does_not_stop_the_others(watched: Watched) -> None:
    """Each changed secret is passed to its service, even if another service fails; a needed restart is logged."""
    (watched.folder / "SENTRY_DSN").write_text("https://key@sentry.example/1")
    (watched.folder / "AUTH__SIGNING_KEY").write_text(generate_signing_key("ES256"))
    (watched.folder / "DATABASE_URL").write_text("postgresql://ana@db/land")
    events = await watched.refresh()
    assert sorted(events) == ["secret_changed", "secret_needs_restart", "secret_not_used"]
    assert sorted(watched.used) == ["AUTH__SIGNING_KEY", "DATABASE_URL", "SENTRY_DSN"]


async def test_an_unexpected_error_counts_as_unavailable(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is counted and logged by its class only, because its message might quote a secret."""

    def fail() -> Settings:
        raise TypeError("a response with a secret")

    with monkeypatch.context() as patch:
        patch.setattr(watched.reader, "read", fail)
        with capture_logs() as logs:
            await watched.follower.refresh()
    assert [entry["reason"] for entry in logs] == ["SECRETS__URL: reading failed with TypeError."]
    assert watched.count("unavailable") == 1
    assert await watched.refresh() == ["secrets_read_again"]


async def test_reads_never_overlap(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two concurrent refreshes read the secrets one after the other."""
    both, overlaps, read = threading.Barrier(2), list[int](), watched.reader.read

    def meet() -> Settings:
        try:
            overlaps.append(both.wait(timeout=0.2))
        except threading.BrokenBarrierError:
            both.reset()
        return read()

    monkeypatch.setattr(watched.reader, "read", meet)
    await asyncio.gather(watched.follower.refresh(), watched.follower.refresh())
    assert (overlaps, watched.count("read")) == ([], 2)
