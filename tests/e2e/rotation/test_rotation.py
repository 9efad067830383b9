"""Rotating secrets, and losing dependencies, while callers send predictions without pause."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg

from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import Signer, new_private_key
from tests.e2e.rotation.conftest import Site
from tests.support.polling import wait_until
from tests.support.servers.sentry import Sink


async def load_during(site: Site, act: Callable[[], object]) -> None:
    """Let callers predict before, during and after `act`, and assert that every request succeeds."""
    callers = site.callers()
    await callers.run(act)
    assert set(callers.outcomes) == {"200"}, (callers.outcomes, site.log())


def wait_for_change(site: Site, setting: str, change: Callable[[], object]) -> None:
    before = site.count(setting)
    change()
    wait_until(lambda: site.count(setting) > before, message=site.log)


async def test_rotated_signing_key(site: Site) -> None:
    """A new signing key signs new tokens after a delay, and tokens signed with the old one stay valid."""
    old_token = site.gateway.token()
    old_header = old_token.partition(".")[0]
    created = (datetime.now(UTC) - timedelta(minutes=1)).isoformat(timespec="seconds")
    bundle = f"Created: {created}\n{generate_signing_key('ES256')}\n{site.secrets.read('AUTH__SIGNING_KEY')}"
    change = lambda: site.secrets.write("AUTH__SIGNING_KEY", bundle)  # noqa: E731
    await load_during(site, lambda: wait_for_change(site, "AUTH__SIGNING_KEY", change))
    wait_until(lambda: site.gateway.token().partition(".")[0] != old_header, message=site.log)
    for token in (old_token, site.gateway.token()):
        assert site.gateway.get("/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert len(site.gateway.get("/.well-known/jwks.json").json()["keys"]) == 2


async def test_removed_signing_key(site: Site) -> None:
    """A token that was signed with a removed key is rejected, even if the gateway has verified it before."""
    headers = {"Authorization": f"Bearer {site.gateway.token()}"}
    for _ in range(4):
        assert site.gateway.get("/v1/me", headers=headers).status_code == 200
    key = generate_signing_key("ES256")
    wait_for_change(site, "AUTH__SIGNING_KEY", lambda: site.secrets.write("AUTH__SIGNING_KEY", key))
    wait_until(lambda: site.gateway.get("/v1/me", headers=headers).status_code == 401, message=site.log)


async def test_rotated_ledger_key(site: Site) -> None:
    """A new ledger key signs the next entries; both public keys together verify the whole ledger."""
    old, new = site.secrets.read("LEDGER__SIGNING_KEY"), new_private_key()
    change = lambda: site.secrets.write("LEDGER__SIGNING_KEY", new)  # noqa: E731
    await load_during(site, lambda: wait_for_change(site, "LEDGER__SIGNING_KEY", change))

    def read_keys() -> set[str]:
        with psycopg.connect(f"{site.database.url}/atalaya") as connection:
            return {row[0] for row in connection.execute("SELECT key FROM ledger_heads WHERE seq > 0")}

    # Entries whose commit takes too long are spooled first.
    wait_until(lambda: read_keys() == {Signer(new).key_id}, message=read_keys)
    site.gateway.environment["LEDGER__PUBLIC_KEYS"] = Signer(old).public_key
    verified = site.gateway.run("ledger", "verify")
    assert verified.returncode == 0, verified.stderr


async def test_rotated_database_password(site: Site) -> None:
    """New connections use the new password, whether it is changed first in the secret store or in the database."""
    second, third = "second long password", "third long password"

    def change_store_first() -> None:
        wait_for_change(site, "DATABASE_URL", lambda: site.secrets.write("DATABASE_URL", site.database_url(second)))
        site.administer(_END_CONNECTIONS, f"ALTER ROLE atalaya PASSWORD '{second}'", _END_CONNECTIONS)

    def change_database_first() -> None:
        site.administer(f"ALTER ROLE atalaya PASSWORD '{third}'")
        wait_for_change(site, "DATABASE_URL", lambda: site.secrets.write("DATABASE_URL", site.database_url(third)))
        site.administer(_END_CONNECTIONS)

    await load_during(site, change_store_first)
    wait_until(lambda: is_writing(site))
    await load_during(site, change_database_first)
    wait_until(lambda: is_writing(site))


async def test_rotated_dsn(site: Site) -> None:
    """After a change of the DSN, unexpected errors are reported to the new project."""
    first, second = site.sinks
    headers = {"Authorization": f"Bearer {site.gateway.token()}"}

    def fail(request_id: str) -> None:
        site.administer("ALTER TABLE api_keys RENAME TO hidden")
        response = site.gateway.get("/v1/keys", headers={**headers, "X-Request-ID": request_id})
        assert response.status_code == 500
        site.administer("ALTER TABLE hidden RENAME TO api_keys")

    def is_reported(sink: Sink, request_id: str) -> bool:
        return any(event["tags"].get("request_id") == request_id for event in sink.events())

    def change() -> None:
        fail("before-the-change")
        wait_until(lambda: is_reported(first, "before-the-change"), message=site.log)
        wait_for_change(site, "SENTRY_DSN", lambda: site.secrets.write("SENTRY_DSN", second.dsn))
        fail("after-the-change")
        wait_until(lambda: is_reported(second, "after-the-change"), message=site.log)
        assert not is_reported(first, "after-the-change")

    await load_during(site, change)


async def test_lost_redis(site: Site) -> None:
    """While Redis is down, limits are counted in the process; no request fails."""

    def lose_redis() -> None:
        site.limits.kill()
        wait_until(lambda: "limits_reduced" in site.log(), message=site.log)
        site.limits.start()
        wait_until(lambda: "limits_restored" in site.log(), message=site.log)

    await load_during(site, lose_redis)


async def test_lost_postgres(site: Site) -> None:
    """While PostgreSQL is down, predictions are spooled, and delivered once it is back; no request fails."""

    def lose_postgres() -> None:
        site.database.stop()
        wait_until(lambda: site.gateway.metric("atalaya_ledger_spooled_entries") > 100, message=site.log)
        site.database.start()

    await load_during(site, lose_postgres)
    wait_until(lambda: is_writing(site), message=site.log)
    assert site.gateway.run("ledger", "verify").returncode == 0


async def test_lost_provider(site: Site) -> None:
    """When the provider of secrets becomes unavailable, that is counted and logged, and the last values stay in use."""
    away = site.secrets.folder.with_name("away")
    unavailable = 'atalaya_secret_reads_total{outcome="unavailable"}'

    def lose_provider() -> None:
        shutil.move(site.secrets.folder, away)
        wait_until(lambda: site.gateway.metric(unavailable) > 0, message=site.log)
        wait_until(lambda: "secrets_unavailable" in site.log(), message=site.log)
        shutil.move(away, site.secrets.folder)
        wait_until(lambda: "secrets_read_again" in site.log())

    await load_during(site, lose_provider)


def is_writing(site: Site) -> bool:
    return (
        site.gateway.metric("atalaya_ledger_spooled_entries") == 0
        and site.gateway.metric('atalaya_ledger_state{state="writing"}') == 1
    )


_END_CONNECTIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'atalaya'"
