"""`/v1/models`: the models of the registry, their aliases, and who moved them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Annotated, TypeVar

import structlog
from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request

from api.deps import Caller, Canary, CurrentPrincipal, GuardedRoute, History, Mover, SettingsDep
from api.errors import VersionRejected
from api.http.audit import record_event
from api.http.paging import ENTRY_ID
from api.http.problems import document_problems
from api.schemas.models import (
    AliasTarget,
    ModelDetails,
    ModelSummary,
    MovedAliases,
    MovePage,
    PastMove,
    VersionDetails,
)
from api.schemas.trials import ModelStatusResponse
from api.services.aliases.moves import read_recorded_move
from api.services.canary.status import read_status
from auth.principal import Scope
from model.errors import ArtefactError, ModelError
from model.registry.artefact import Manifest, read_manifest
from model.registry.errors import MoveUnrecorded, RegistryUnavailable
from model.registry.files import FileRegistry
from model.registry.moves import Change
from model.registry.state import NAME_PATTERN
from monitoring.errors import AuditUnavailable, MonitoringError
from monitoring.ledger.entries import name_model_subject

T = TypeVar("T")

_MAX_LIMIT = 200
_AUDIT_LIMIT_S = 15.0  # the audit log itself gives up earlier
_READER, _WRITER = Depends(Caller(Scope.MODELS_READ)), Depends(Caller(Scope.MODELS_WRITE))

Name = Annotated[str, Path(pattern=f"^{NAME_PATTERN}$")]

log = structlog.get_logger("atalaya.model")
router = APIRouter(
    prefix="/v1/models",
    tags=["models"],
    responses=document_problems(401, 403, 404, 409, 422, 503),
    route_class=GuardedRoute,
)


@router.get("", dependencies=[_READER])
async def list_models(mover: Mover) -> list[ModelSummary]:
    """The models of the registry, by name, and the versions that their aliases point to."""
    registry = mover.registry
    return await _run(lambda: [ModelSummary.of(name, registry.read(name)) for name in registry.list_models()])


@router.get("/{name}", dependencies=[_READER])
async def show(mover: Mover, name: Name) -> ModelDetails:
    """A model and its versions, with the aliases that point to them and their tags."""
    return ModelDetails.of(name, await _run(lambda: mover.registry.read(name)))


@router.get("/{name}/versions/{version}", dependencies=[_READER])
async def show_version(mover: Mover, name: Name, version: Name) -> VersionDetails:
    """A version: its classes, its files, and its measured results."""
    state = await _run(lambda: mover.registry.read(name))
    listed = state.find(version)
    manifest = await _run(lambda: _read_manifest(mover.registry, name, version), name, version)
    return VersionDetails.of_manifest(listed, state, manifest)


@router.get("/{name}/status", dependencies=[_READER])
async def status(mover: Mover, canary: Canary, settings: SettingsDep, name: Name) -> ModelStatusResponse:
    """The candidate for a model, the evidence so far, and the verdict or what is still missing for one."""
    state = await _run(lambda: mover.registry.read(name))
    return ModelStatusResponse.of(await read_status(settings, canary.store, name, state), settings.canary)


@router.get("/{name}/history", dependencies=[_READER])
async def history(
    mover: Mover,
    history: History,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=_MAX_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(pattern=ENTRY_ID, description="`next` of the previous page")] = None,
) -> MovePage:
    """Every move of an alias of the model, newest first: who, when, from, to and why.

    A page may have fewer entries than `limit`. `atalaya models history` also verifies that none is missing.
    """
    await _run(lambda: mover.registry.read(name))
    recorded = await history.list_newest_events(name_model_subject(name), limit + 1, cursor)
    page = recorded[:limit]
    moves = [(item, read_recorded_move(item.payload)) for item in page]
    next_cursor = page[-1].entry.id if len(recorded) > limit else None
    return MovePage(entries=[PastMove.of(item, move) for item, move in moves if move is not None], next=next_cursor)


@router.post("/{name}/aliases/{alias}", dependencies=[_WRITER])
async def move_alias(
    request: Request, mover: Mover, principal: CurrentPrincipal, name: Name, alias: Name, body: AliasTarget
) -> MovedAliases:
    """Point an alias to another version, and its `previous` to the version before.

    All processes follow an alias of the model in service within two seconds.
    """
    target, loop = f"model:{name}", asyncio.get_running_loop()

    def record(change: Change) -> None:
        """Record the move before it takes effect, since the registry is not in the database. Runs in a thread."""
        detail = {"alias": alias, "from": change.before or "", "to": change.after or "", "why": body.why}
        recording = record_event(request, "model", "promoted", target=target, within=None, **detail)
        _wait_for(asyncio.run_coroutine_threadsafe(recording, loop))

    try:
        changes = await _run(
            lambda: mover.promote(
                name,
                body.version,
                who=principal.subject,
                why=body.why,
                alias=alias,
                expected=body.expect,
                before_move=record,
            ),
            name,
            body.version,
        )
    except (ModelError, MonitoringError, VersionRejected) as error:
        outcome = "unrecorded" if isinstance(error, MoveUnrecorded) else "refused"
        await record_event(request, "model", outcome, target=target, alias=alias, code=error.code)
        raise
    return MovedAliases.of(name, changes)


def _wait_for(recorded: Future[None]) -> None:
    """Raises AuditUnavailable."""
    try:
        recorded.result(_AUDIT_LIMIT_S)
    except TimeoutError:
        recorded.cancel()
        raise AuditUnavailable from None


def _read_manifest(registry: FileRegistry, name: str, version: str) -> Manifest:
    return read_manifest(registry.find_folder(name, version))


async def _run(function: Callable[[], T], name: str = "", version: str = "") -> T:
    """Call the function in a thread. Errors that name paths of the server are logged, and replaced for the caller."""
    try:
        return await asyncio.to_thread(function)
    except ArtefactError as error:
        log.error("version_rejected", model=name, version=version, code=error.code, reason=str(error))
        raise VersionRejected(name, version, error.code) from error
    except MoveUnrecorded as error:
        log.error("alias_moves_unrecorded", model=name, reason=str(error), policy="the next move or start records them")
        raise MoveUnrecorded(
            "The alias was moved, but the ledger could not record it. It will be recorded when an alias of the model "
            "is moved again, or when a gateway starts. The gateway's log says why."
        ) from error
    except RegistryUnavailable as error:
        log.error("registry_unreadable", code=error.code, reason=str(error), policy="the request is rejected")
        raise RegistryUnavailable(
            "The registry of models cannot be read or written. The gateway's log says why."
        ) from error
