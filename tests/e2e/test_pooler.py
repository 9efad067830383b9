"""A gateway whose connections to PostgreSQL go through a pooler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from storage.engine import open_blocking_engine, open_engine
from storage.transactions import ping
from tests.e2e import pgbouncer
from tests.support.gateway import Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.requirements import find_program

COMMITS = ('count{stage="commit"}', 'bucket{le="2.5",stage="commit"}')


@pytest.fixture(params=["session", "transaction"])
def pooler_url(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[str]:
    """The URL of an empty database behind PgBouncer, once for each pool mode."""
    database = urlsplit(postgres_url)
    with pgbouncer.running(find_program("pgbouncer"), postgres_url, request.param) as url:
        yield f"{url}{database.path}"


def test_gateway_runs_behind_a_pooler(pooler_url: str, new_gateway: Callable[..., Gateway]) -> None:
    """Migrations, accounts, logins, recorded predictions and the ledger's verification work behind PgBouncer."""
    gateway = new_gateway(DATABASE_URL=pooler_url, MODEL__URL="stub://", WEB_CONCURRENCY="2")
    with gateway.client() as client:
        for _ in range(12):  # psycopg prepares a statement when it is executed for the sixth time
            assert client.post("/v1/predictions", files={"file": FOREST.read_bytes()}).status_code == 200
        # Entries whose commit takes too long are spooled first.
        wait_until(lambda: len(client.get("/v1/predictions").json()["entries"]) == 12)
    verified = gateway.run("ledger", "verify", "--json")
    assert (verified.returncode, verified.stderr) == (0, "")
    assert gateway.run("audit", "verify").returncode == 0
    commits, fast = (gateway.metric(f"atalaya_prediction_stage_seconds_{sample}") for sample in COMMITS)
    assert commits == 12
    assert gateway.stop() == 0
    # Only a commit that takes three seconds, on a busy machine, may cause spooling.
    assert fast < commits or "ledger_spooling" not in gateway.log()


async def test_limits_do_not_leak_to_other_clients(pooler_url: str) -> None:
    """A transaction's time limits do not apply to the next client of the same server connection."""
    blocking, engine = open_blocking_engine(pooler_url, wait_s=7), open_engine(pooler_url, wait_s=8)
    for _ in range(3):
        with blocking.begin() as connection:
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "7s"
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "7s"
        async with engine.begin() as other_connection:
            assert (await other_connection.exec_driver_sql("SHOW statement_timeout")).scalar_one() == "8s"
    blocking.dispose()
    await engine.dispose()
    with psycopg.connect(pooler_url, prepare_threshold=None) as other:
        assert other.execute("SHOW statement_timeout").fetchone() == ("0",)


async def test_schema_applies_to_every_transaction(pooler_url: str, postgres_url: str) -> None:
    """Tables are looked up in the schema that the URL names, on whichever server connection a transaction runs."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute('CREATE SCHEMA "Land"')
    engine = open_engine(f"{pooler_url}?schema=Land&pgbouncer=true")
    try:
        await ping(engine)
        for _ in range(3):
            async with engine.begin() as connection_in_schema:
                found = await connection_in_schema.exec_driver_sql("SELECT current_schema()")
                assert found.scalar_one() == "Land"
    finally:
        await engine.dispose()
