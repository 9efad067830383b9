"""Verifies the records of a restored database."""

from __future__ import annotations

from collections.abc import Sequence

from api.commands.backup.keys import find_public_keys
from api.commands.database import CommandEvent, run_with_engine
from api.commands.ledger.database import open_snapshot
from api.errors import CommandFailed
from api.settings import Settings
from monitoring.audit.store import AuditStore
from monitoring.chains.signing import Signer, Verifier
from monitoring.ledger.records import read_records
from monitoring.ledger.verification import stream

_DAMAGED = "The backup is restored, but the {record} was changed before the backup was made: {problem}"


def verify_restored(settings: Settings, keys: bytes, earlier_keys: Sequence[str]) -> tuple[int, int | None]:
    """Verify the audit log and the ledger, and record the restoration in the audit log.

    Returns the numbers of audit entries and of ledger entries. The latter is None if no key to verify the ledger with
    is configured, in the backup or given. Raises CommandFailed.
    """
    report = run_with_engine(
        settings, lambda engine: AuditStore(engine).verify(), lambda _: CommandEvent("backup", "restored")
    )
    if report.problem is not None:
        raise CommandFailed(_DAMAGED.format(record="audit log", problem=report.problem))
    configured = [Signer(settings.ledger_key()).public_key] if settings.ledger.signing_key else []
    # A new gateway may have a key of its own.
    public_keys = [*configured, *settings.ledger.public_keys, *find_public_keys(keys), *earlier_keys]
    if not public_keys:
        return report.entries, None
    with open_snapshot(settings) as connection:
        ledger = stream.verify(read_records(connection), Verifier(public_keys), None)
    if ledger.problem is not None:
        raise CommandFailed(_DAMAGED.format(record="ledger", problem=ledger.problem))
    return report.entries, ledger.entries
