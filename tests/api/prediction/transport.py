"""An in-process transport that passes the images of one user to a prediction pipeline."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from api.http.draining import Draining
from api.http.refusals import classify_error
from api.prediction.pipeline import PredictionPipeline
from api.prediction.quotas import QuotaChargeRecorder
from api.prediction.request import PredictionRequest, RecordedPrediction, RequestOrigin
from api.services.background.activity import Activity
from api.services.recording import open_recording_services
from api.services.serving import ServingServices, open_backend, open_serving_services
from api.settings import Settings
from auth.principal import Principal, Role, Scope
from auth.quotas.meter import UsageMeter
from auth.quotas.tallies import list_owners
from model.backends.base import Backend
from monitoring.audit.store import AuditFilter, AuditStore
from monitoring.ledger.reader import LedgerReader
from monitoring.metrics import Metrics
from storage.engine import open_engine
from storage.logins import DatabaseLogin

ROUTE = "queue:predictions"
ADDRESS = "192.0.2.1"
OpenTransport = Callable[..., AbstractAsyncContextManager["InProcessTransport"]]


@dataclass
class InProcessTransport:
    """`ledger`, `audit_log` and `used_requests` are read from the database after the transport has closed."""

    pipeline: PredictionPipeline
    serving: ServingServices
    principal: Principal
    registry: CollectorRegistry
    bodies_read: int = 0
    ledger: list[dict[str, Any]] = field(default_factory=list)
    audit_log: list[tuple[str, str, str, str]] = field(default_factory=list)
    used_requests: int = 0

    def request(self, image: bytes = b"", **changes: Any) -> PredictionRequest[bytes]:
        async def read_body() -> bytes:
            self.bodies_read += 1
            return image

        origin = RequestOrigin(self.principal, ADDRESS, "request-1", ROUTE)
        return PredictionRequest(**{"origin": origin, "read_body": read_body, **changes})

    async def run(self, image: bytes = b"", **changes: Any) -> RecordedPrediction:
        return await self.pipeline.run(self.request(image, **changes))

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    @property
    def outcomes(self) -> list[tuple[int, str | None, int]]:
        """Status, code and count of each ledger entry, oldest first."""
        return [(facts["status"], facts["code"], facts["count"]) for facts in self.ledger]


@asynccontextmanager
async def open_in_process(settings: Settings, backend: Backend, quota: int | None) -> AsyncIterator[InProcessTransport]:
    """Open a pipeline for the user `ana`, whose monthly quota of requests is `quota`."""
    principal = find_user(settings, quota)
    url, registry = settings.database_url.get_secret_value(), CollectorRegistry()
    engine, login = open_engine(url), DatabaseLogin(url)
    meter, metrics = UsageMeter(engine), Metrics(registry)
    async with (
        open_backend(lambda: backend, metrics) as opened,
        open_recording_services(
            settings, engine, login, metrics, QuotaChargeRecorder(meter), Activity(None)
        ) as recording,
        open_serving_services(settings, opened, metrics, Draining(), Activity(None)) as serving,
    ):
        policy = settings.model.abstain
        pipeline = PredictionPipeline(serving, recording, meter, metrics, classify_error, longest_s=10, policy=policy)
        transport = InProcessTransport(pipeline, serving, principal, registry)
        yield transport
    # Closing has flushed the ledger and the audit log.
    newest = await LedgerReader(engine).list_newest(principal.subject, 100)
    transport.ledger = [past.read_facts() for past in reversed(newest)]
    entries = await AuditStore(engine).list_newest(AuditFilter(), 100)
    transport.audit_log = [(entry.event, entry.outcome, entry.actor, entry.address) for entry in entries]
    (tally,) = (await meter.report(list_owners(principal))).tallies
    transport.used_requests = tally.requests
    await engine.dispose()


def find_user(settings: Settings, quota: int | None) -> Principal:
    path = settings.database_url.get_secret_value().removeprefix("sqlite:///")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE users SET monthly_requests = ? WHERE name = 'ana'", (quota,))
    ((subject,),) = connection.execute("SELECT id FROM users WHERE name = 'ana'").fetchall()
    connection.close()
    return Principal(subject, "ana", Role.CLIENT, frozenset({Scope.PREDICT}), None)
