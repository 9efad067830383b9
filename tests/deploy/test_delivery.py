"""Delivery of a real gateway's alerts to receivers through a real Prometheus and a real Alertmanager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy import alerting
from tests.deploy.receivers import MailServer, Webhook
from tests.support.gateway import Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.postgres import Postgres
from tests.support.requirements import missing
from tests.support.servers.running import running

pytestmark = pytest.mark.long

MAIL_SUBJECT = "FIRING AtalayaDatabaseDown (1)"


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that only this test uses, because it stops the server."""
    try:
        server = Postgres()
    except LookupError as error:
        missing(str(error))
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.remove()


def test_an_outage_of_the_database_and_of_the_gateway(
    new_gateway: Callable[..., Gateway], postgres: Postgres, tmp_path: Path
) -> None:
    """Each fault causes a notification with its runbook, and the alert about its consequence is suppressed."""
    gateway = new_gateway(MODEL__URL="stub://", DATABASE_URL=f"{postgres.url}/postgres")
    client = gateway.client()
    with (
        running(Webhook()) as webhook,
        running(MailServer()) as mail,
        alerting.running(tmp_path, gateway.metrics_url, webhook, mail) as servers,
    ):
        client.post("/v1/predictions", content=FOREST.read_bytes())
        wait_until(lambda: "AtalayaWatchdog" in servers.alerts("active"))
        postgres.stop()
        assert client.post("/v1/predictions", content=FOREST.read_bytes()).status_code == 200
        wait_until(lambda: "AtalayaDatabaseDown" in webhook.alerts("firing"))
        wait_until(lambda: MAIL_SUBJECT in mail.subjects)
        wait_until(lambda: "AtalayaDatabaseDown" in str(webhook.documents("/slack")))
        wait_until(lambda: "AtalayaLedgerSpooling" in servers.alerts("suppressed"))
        # Not later: once the database is back, Prometheus may scrape the gateway just before the spool is empty.
        assert "AtalayaLedgerSpooling" not in webhook.alerts("firing")
        postgres.start()
        wait_until(lambda: "AtalayaDatabaseDown" in webhook.alerts("resolved"))
        client.close()
        gateway.kill()
        wait_until(lambda: "AtalayaDown" in webhook.alerts("firing"))
    firing = webhook.alerts("firing")
    runbooks = {name: alert["annotations"]["runbook_url"] for name, alert in firing.items()}
    assert runbooks["AtalayaDown"] == f"{alerting.RUNBOOKS_URL}/availability.md#atalayadown"
    assert "runbooks" not in firing["AtalayaDown"]["labels"]
    assert runbooks["AtalayaDatabaseDown"] in str(webhook.documents("/slack"))
    assert mail.passwords[0] == "correct horse"
    message = mail.messages[mail.subjects.index(MAIL_SUBJECT)]
    text = message.get_body(("plain",))
    assert text is not None
    assert runbooks["AtalayaDatabaseDown"] in text.get_content()
