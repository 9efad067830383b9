"""Services that record what happened: the audit log and the prediction ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from api.services.audit import AuditRecorder
from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.measuring.cost import CostService, open_cost_service
from api.services.measuring.quality import QualityService, open_quality_service
from api.services.personal_data.erasure import RecordErasure
from api.services.personal_data.opening import ImageServices, open_image_services
from api.services.personal_data.upkeep import follow_erasures
from api.settings import Settings
from auth.accounts.erasures import PendingErasures
from monitoring.audit.store import AuditStore
from monitoring.audit.trail import AuditTrail
from monitoring.chains.signing import Signer
from monitoring.ledger.charges import ChargeRecorder
from monitoring.ledger.journal import Journal
from monitoring.ledger.ledger import Ledger, LedgerState
from monitoring.ledger.reader import LedgerReader
from monitoring.ledger.spool.folder import SpoolFolder
from monitoring.ledger.writing.events import EventWriter
from monitoring.ledger.writing.store import LedgerStore
from monitoring.metrics import Metrics
from storage.engine import open_blocking_engine, sqlite_path
from storage.logins import DatabaseLogin
from storage.transactions import WRITING

LEDGER_WAIT_S = 1  # how long the ledger waits for the database before it spools its entries
EVENT_WAIT_S = 10  # how long a command waits for the lock that a gateway holds while it writes


class RecordingServices(Struct, frozen=True):
    """`audit` and `ledger` write; `audit_log` and `history` read what they wrote; `erasure` erases it.

    `quality` computes the quality of the models from the ledger, and `cost` the cost of their predictions. `images`
    keeps images; None without a store for them.
    """

    audit: AuditRecorder
    audit_log: AuditStore
    ledger: Ledger
    history: LedgerReader
    erasure: RecordErasure
    quality: QualityService
    images: ImageServices | None
    cost: CostService

    async def use_ledger_key(self, private_key: str) -> None:
        """Sign with another key from now on. Raises BadLedgerKey."""
        signer = Signer(private_key)
        await self.ledger.use_signer(signer)
        self.erasure.use_signer(signer)


@asynccontextmanager
async def open_recording_services(
    settings: Settings,
    engine: AsyncEngine,
    login: DatabaseLogin,
    metrics: Metrics,
    charges: ChargeRecorder,
    activity: Activity,
) -> AsyncIterator[RecordingServices]:
    """Open the audit trail and the ledger, which charges quotas with `charges` as it records predictions.

    The services that open connections of their own, such as the ledger, use `login`.

    Raises LedgerUnavailable, SettingsError, OSError.
    """
    async with AsyncExitStack() as stack:
        audit_log = AuditStore(engine)
        trail = await stack.enter_async_context(AuditTrail(audit_log, metrics.audit_failures.inc).running())
        journal = open_journal(settings, charges, metrics.ledger_contradictions.inc, login)
        ledger = await stack.enter_async_context(
            Ledger(
                journal,
                _report_ledger_state(metrics),
                metrics.ledger_entries.inc,
                on_checkpoint_failure=metrics.ledger_checkpoint_failures.inc,
                sleep=activity.sleep,
            )
        )
        activity.close_when_idle(ledger.close_connection)
        audit = AuditRecorder(trail, metrics.auth_events)
        quality = await stack.enter_async_context(open_quality_service(settings, metrics, login, activity))
        images = await stack.enter_async_context(open_image_services(settings, engine, metrics, activity))
        pending = PendingErasures(engine)
        erasure = RecordErasure(settings, audit_log, pending, login, images.store if images else None)
        stack.push_async_callback(erasure.close)
        await stack.enter_async_context(run_in_background(follow_erasures(erasure, pending, activity.sleep)))
        cost = await stack.enter_async_context(open_cost_service(settings, quality, metrics, activity))
        yield RecordingServices(audit, audit_log, ledger, LedgerReader(engine), erasure, quality, images, cost)


def open_journal(
    settings: Settings,
    charges: ChargeRecorder,
    on_contradiction: Callable[[], None] = lambda: None,
    login: DatabaseLogin | None = None,
) -> Journal:
    """Create the ledger's journal, on its own connection to the database. Raises SettingsError, BadLedgerKey.

    `on_contradiction` is called for every row that contradicts a signature or what this process has written.
    """
    store = _open_store(settings, LEDGER_WAIT_S, on_contradiction, login)
    database = sqlite_path(settings.database_url.get_secret_value())
    folder = SpoolFolder(settings.ledger.spool_folder, settings.ledger.spool_megabytes * 1_000_000, database)
    return Journal(store, charges, folder, enabled=settings.ledger.enabled)


def open_event_writer(settings: Settings) -> EventWriter:
    """Create a writer of events for a process other than a gateway. Raises SettingsError, BadLedgerKey."""
    return EventWriter(_open_store(settings, EVENT_WAIT_S))


def _open_store(
    settings: Settings,
    wait_s: int,
    on_contradiction: Callable[[], None] = lambda: None,
    login: DatabaseLogin | None = None,
) -> LedgerStore:
    engine = open_blocking_engine(settings.database_url.get_secret_value(), wait_s, login)
    return LedgerStore(
        engine.execution_options(**WRITING),
        Signer(settings.ledger_key()),
        on_contradiction=on_contradiction,
        public_keys=settings.ledger.public_keys,
    )


def _report_ledger_state(metrics: Metrics) -> Callable[[LedgerState, int], None]:
    def report(current: LedgerState, spooled: int) -> None:
        for state in LedgerState:
            metrics.ledger_state.labels(state).set(state is current)
        metrics.ledger_spooled.set(spooled)

    return report
