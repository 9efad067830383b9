"""Why a retraining is due."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from api.services.registry import open_registry
from api.settings import Settings
from model.registry.errors import UnknownAlias, UnknownModel

# Returns a reason as a sentence, or None.
DueCheck = Callable[[Settings, datetime], str | None]


def find_due_reasons(settings: Settings, now: datetime | None = None) -> list[str]:
    """Return a sentence for each reason why a new version should be trained. Raises RegistryError."""
    moment = now or datetime.now(UTC)
    return [reason for check in _CHECKS if (reason := check(settings, moment)) is not None]


def check_age(settings: Settings, now: datetime) -> str | None:
    """Whether the version that MODEL__URL names by an alias was added too long ago; others have no known age."""
    reference = settings.model.reference
    if reference is None:
        return None
    try:
        version = open_registry(settings).read(reference.model).find(f"@{reference.alias}")
    except (UnknownModel, UnknownAlias):
        return None
    days = (now - datetime.fromisoformat(version.added_at)).days
    limit = settings.model.retrain_days
    if days < limit:
        return None
    return f"{reference.model} {version.version} is {days} days old, and MODEL__RETRAIN_DAYS is {limit}."


_CHECKS: tuple[DueCheck, ...] = (check_age,)
