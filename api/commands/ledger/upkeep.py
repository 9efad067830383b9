"""`atalaya ledger prune` and `erase`: remove old entries, and erase a person's payloads.

Each is recorded in the audit log before it begins, since it may be interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from sqlalchemy import Engine

from api.commands.database import CommandEvent, open_migrated_engine, write_event
from api.commands.ledger.database import find_subject
from api.commands.options.confirmation import DryRun, Yes, confirm
from api.commands.output import JsonFlag, format_count, format_erased_images, print_json, progress_bar
from api.errors import CommandFailed
from api.services.personal_data.archive import erase_images, open_image_archive
from api.settings import Settings, load_settings
from monitoring.chains.signing import Signer
from monitoring.errors import LedgerKeyMissing
from monitoring.ledger.entries import MODEL_SUBJECT
from monitoring.ledger.upkeep.erasure import Eraser
from monitoring.ledger.upkeep.pruning import Pruner
from storage.transactions import WRITING

EarlierKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--public-key",
        metavar="KEY",
        help="Accept signatures of this earlier key, too, as `atalaya ledger key` printed it. Can be repeated.",
    ),
]


def prune(public_key: EarlierKeys = None, yes: Yes = False, dry_run: DryRun = False, as_json: JsonFlag = False) -> None:
    """Remove the predictions older than LEDGER__KEEP_DAYS; the remaining ones stay verifiable."""
    settings = load_settings()
    count = count_older_predictions(settings)
    age = f"older than {format_count(settings.ledger.keep_days, 'day')}"
    if not dry_run:
        confirm(
            f"Remove {format_count(count, 'prediction')} {age} from the ledger permanently?", yes=yes, needed=count > 0
        )
        count = prune_ledger(settings, public_key or ())
    if as_json:
        print_json({"would_remove" if dry_run else "removed": count})
    else:
        typer.echo(f"{format_count(count, 'prediction')} {age} {'would be ' if dry_run else ''}removed.")


def count_older_predictions(settings: Settings) -> int:
    """Return about how many entries `prune_ledger` would remove. Raises SettingsError, DatabaseUnavailable."""
    now = datetime.now(UTC)
    with _open_engine(settings) as (engine, signer):
        return Pruner(engine, signer, now).count(now - timedelta(days=settings.ledger.keep_days))


def prune_ledger(settings: Settings, earlier_keys: Sequence[str]) -> int:
    """Remove the entries older than LEDGER__KEEP_DAYS; returns how many.

    Signatures of `earlier_keys` and of LEDGER__PUBLIC_KEYS are accepted, too.
    Raises SettingsError, DatabaseUnavailable, AuditUnavailable, LedgerDamaged, LedgerInUse.
    """
    now = datetime.now(UTC)
    before = now - timedelta(days=settings.ledger.keep_days)
    with _open_engine(settings) as (engine, signer):
        pruner = Pruner(engine, signer, now, [*earlier_keys, *settings.ledger.public_keys])
        count = pruner.count(before)
        write_event(
            settings, CommandEvent("ledger", "pruned", detail={"entries": str(count), "before": before.isoformat()})
        )
        return _run("pruning", count, pruner.prune(before))


def erase(
    principal: Annotated[str, typer.Option(help="A user's name, or a subject.")],
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Erase the payloads of a person's predictions, and kept images; the ledger still proves that they existed."""
    settings = load_settings()
    archive = open_image_archive(settings)
    subject = find_subject(settings, principal)
    if subject.startswith(MODEL_SUBJECT):
        raise CommandFailed("Only what a person's entries contain is erased. The history of a model is kept.")
    count = count_predictions(settings, subject)
    confirm(f"Erase {format_count(count, 'prediction')} of {principal} permanently?", yes=yes)
    erased = erase_predictions(settings, subject)  # first, because it records who erased them
    images = erase_images(archive, subject)
    if as_json:
        print_json({"erased": erased, "erased_images": images})
    else:
        typer.echo(f"Erased {format_count(erased, 'prediction')} and {format_erased_images(images)} of {principal}.")


def count_predictions(settings: Settings, subject: str) -> int:
    """Return how many payloads `erase_predictions` would erase.

    Raises SettingsError, DatabaseUnavailable, LedgerKeyMissing.
    """
    with _open_eraser(settings) as eraser:
        count = eraser.count(subject)
    if count and not _has_key(settings):
        raise LedgerKeyMissing
    return count


def erase_predictions(settings: Settings, subject: str) -> int:
    """Erase the payloads of the subject's predictions, and record it; returns how many.

    Raises SettingsError, DatabaseUnavailable, AuditUnavailable, LedgerDamaged, LedgerInUse, LedgerKeyMissing.
    """
    with _open_eraser(settings) as eraser:
        count = eraser.count(subject)
        event = CommandEvent("ledger", "erased", target=f"user:{subject}", detail={"payloads": str(count)})
        write_event(settings, event)
        return _run("erasing", count, eraser.erase(subject))


def _has_key(settings: Settings) -> bool:
    """Whether the ledger has a key, which it needs only if it is enabled or has entries from an earlier time."""
    return settings.ledger.enabled or settings.ledger.signing_key is not None


@contextmanager
def _open_eraser(settings: Settings) -> Iterator[Eraser]:
    """Raises SettingsError, DatabaseUnavailable."""
    signer = Signer(settings.ledger_key()) if _has_key(settings) else None
    with open_migrated_engine(settings) as engine:
        yield Eraser(engine.execution_options(**WRITING), signer, datetime.now(UTC))


@contextmanager
def _open_engine(settings: Settings) -> Iterator[tuple[Engine, Signer]]:
    signer = Signer(settings.ledger_key())
    with open_migrated_engine(settings) as engine:
        yield engine.execution_options(**WRITING), signer


def _run(label: str, total: int, chunks: Iterator[int]) -> int:
    """Consume the chunks under a progress bar, and return their sum."""
    done = 0
    with progress_bar(label, total) as advance:
        for chunk in chunks:
            done += chunk
            advance(done)
    return done
