"""Moves aliases of the registry, and records every move in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog

from api.services.background import run_in_background
from api.services.recording import open_event_writer
from api.services.registry import open_registry
from api.settings import Settings
from model.errors import ModelError
from model.registry.files import FileRegistry
from model.registry.moves import AliasMove, parse_move
from model.registry.promotion import AliasMover
from monitoring.errors import LedgerUnavailable, MonitoringError
from monitoring.ledger.entries import EntryKind, Payload, build_event, name_model_subject
from monitoring.ledger.ledger import Ledger
from monitoring.ledger.payloads import parse_json

RECORD_LIMIT_S = 10.0
"""The longest wait for one entry. The ledger writes it to the spool after a shorter time."""

log = structlog.get_logger("atalaya.model")


def describe_move(model: str, move: AliasMove) -> dict[str, Any]:
    """Return what the ledger records of a move."""
    return build_event(EntryKind.ALIAS_MOVED, name_model_subject(model), move.as_dict())


def read_recorded_move(payload: Payload) -> AliasMove | None:
    """Return the move that a payload records, or None for another event or an altered document."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        document = parse_json(payload.document)
        if document["kind"] == EntryKind.ALIAS_MOVED:
            return parse_move(document[EntryKind.ALIAS_MOVED])
    return None


def record_moves(settings: Settings, registry: FileRegistry, model: str) -> None:
    """Record the unrecorded moves of a model's aliases from a process other than a gateway.

    Raises SettingsError, MonitoringError, RegistryError.
    """
    if not settings.ledger.enabled:
        return
    with open_event_writer(settings) as writer:
        registry.record_moves(model, lambda move: writer.record(describe_move(model, move)))


@asynccontextmanager
async def open_alias_mover(settings: Settings, ledger: Ledger) -> AsyncIterator[AliasMover | None]:
    """Yield an alias mover, to be called outside the event loop's thread; None without MODEL__REGISTRY.

    Moves that an interruption left unrecorded are recorded in the background.
    """
    if settings.model.registry is None:
        yield None
        return
    loop = asyncio.get_running_loop()

    def record(model: str, move: AliasMove) -> None:
        recorded = asyncio.run_coroutine_threadsafe(ledger.record(describe_move(model, move), None), loop)
        try:
            recorded.result(RECORD_LIMIT_S)
        except TimeoutError:
            raise LedgerUnavailable from None

    mover = AliasMover(open_registry(settings), record, settings.artefact_key(), mirrored=settings.model.is_mirrored)
    async with run_in_background(_record_interrupted(mover)):
        yield mover


async def _record_interrupted(mover: AliasMover) -> None:
    try:
        for model in await asyncio.to_thread(mover.registry.list_models):
            await asyncio.to_thread(mover.record_moves, model)
    except (ModelError, MonitoringError) as error:
        log.warning("alias_moves_unrecorded", reason=str(error), policy="the next move or start records them")
