"""Services that record what happened."""

from __future__ import annotations

from api.prediction.recording import QuotaChargeRecorder
from api.settings import Settings
from auth.quotas.meter import UsageMeter
from monitoring.chains.signing import Signer
from monitoring.ledger.journal import Journal, SpoolPolicy
from monitoring.ledger.store import LedgerStore
from storage.engine import open_blocking_engine, sqlite_path
from storage.transactions import WRITING

LEDGER_WAIT_S = 1  # after that the spool takes the entries


def open_journal(settings: Settings, meter: UsageMeter) -> Journal:
    """Create the ledger's journal, on its own connection to the database. Raises SettingsError, BadLedgerKey."""
    url = settings.database_url.get_secret_value()
    engine = open_blocking_engine(url, LEDGER_WAIT_S)
    store = LedgerStore(engine.execution_options(**WRITING), Signer(settings.ledger_key()))
    spool = SpoolPolicy(settings.ledger.spool_folder, settings.ledger.spool_megabytes * 1_000_000, sqlite_path(url))
    return Journal(store, QuotaChargeRecorder(meter), spool, keep=settings.ledger.enabled)
