"""Moves of a model's aliases: what moved, who decided it, and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from msgspec import Struct

MAX_REASON_LENGTH = 500


class Change(Struct, frozen=True):
    """The versions that an alias pointed to before and after a move; None for no version."""

    before: str | None
    after: str | None


class AliasMove(Struct, frozen=True):
    """One decision, which may move several aliases at once. `at` is in ISO 8601, UTC."""

    id: str
    at: str
    who: str
    why: str
    aliases: Mapping[str, Change]

    def as_dict(self) -> dict[str, Any]:
        """Return the move for JSON, in the form that the registry and the ledger store."""
        aliases = {alias: {"from": change.before, "to": change.after} for alias, change in self.aliases.items()}
        return {"id": self.id, "at": self.at, "who": self.who, "why": self.why, "aliases": aliases}


def new_move(who: str, why: str, aliases: Mapping[str, Change]) -> AliasMove:
    """Create a move that takes effect now."""
    return AliasMove(uuid4().hex, datetime.now(UTC).isoformat(timespec="milliseconds"), who, why, aliases)


def parse_move(document: Mapping[str, Any]) -> AliasMove:
    """Read what `as_dict` returned. Raises ValueError, TypeError, KeyError, AttributeError."""
    datetime.fromisoformat(document["at"])
    aliases = {alias: Change(change["from"], change["to"]) for alias, change in document["aliases"].items()}
    return AliasMove(document["id"], document["at"], document["who"], document["why"], aliases)
