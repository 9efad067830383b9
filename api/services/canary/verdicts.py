"""Acts on a verdict: moves the aliases if the settings allow it, and records the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from api.server.exit_status import describe_error
from api.services.canary.evidence import read_counts
from api.settings import Settings
from api.settings.quality.canary import VerdictPolicy
from model.canary.judge import Verdict, judge
from model.canary.report import explain
from model.registry.errors import AliasesElsewhere, MoveUnrecorded, RegistryError
from model.registry.moves import MAX_REASON_LENGTH
from model.registry.promotion import AliasMover, name_previous
from model.registry.reference import ModelReference
from monitoring.canary.store import TrialRecord, TrialStore
from monitoring.ledger.entries import EntryKind, build_event, name_model_subject
from monitoring.metrics import Metrics

# Records an entry with these facts, and returns once it is durable in the ledger.
RecordEntry = Callable[[dict[str, Any]], Awaitable[object]]

log = structlog.get_logger("atalaya.canary")


class VerdictActions:
    """Acts on the verdicts of one model's trials. A step that fails is repeated by a later call."""

    def __init__(
        self,
        settings: Settings,
        reference: ModelReference,
        mover: AliasMover,
        store: TrialStore,
        record_entry: RecordEntry,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._reference = reference
        self._mover = mover
        self._store = store
        self._record_entry = record_entry
        self._metrics = metrics

    async def act(self, record: TrialRecord) -> None:
        """Act on the verdict of a trial. An error is logged and not raised: other verdicts do not depend on it."""
        names = record.names
        try:
            reasons = explain(judge(read_counts(record.counts), self._settings.canary.rules))
            moved = await asyncio.to_thread(self._move_aliases, record, reasons)
            await self._record_entry(_describe(record, moved, reasons))
            await self._store.finish(names.id)
        except Exception as error:  # anything may be wrong with one record, such as counts from a later release
            code, (reason, *_) = describe_error(error)
            log.error("canary_verdict_not_recorded", code=code, reason=reason, policy="the gateway tries again later")
            return
        self._metrics.canary_verdicts.labels(record.verdict).inc()
        log.warning(
            "canary_verdict",
            model=names.model,
            candidate=names.candidate,
            production=names.production,
            verdict=record.verdict,
            moved=moved,
            reasons=reasons,
        )

    def _move_aliases(self, record: TrialRecord, reasons: tuple[str, ...]) -> bool:
        """Move the aliases if the settings allow it, and return whether they match the verdict. Raises RegistryError.

        A verdict moves aliases only once, so repeating this call does not undo a later decision of an operator.
        """
        canary, names = self._settings.canary, record.names
        if canary.verdict is not VerdictPolicy.ACT:
            return False
        production = self._reference.alias
        targets: dict[str, str | None] = {canary.alias: None}
        if record.verdict == Verdict.PROMOTE:
            # The same move removes the candidate's alias, so that a repeated step cannot undo a later roll-back.
            targets |= {production: names.candidate, name_previous(production): names.production}
        expected = {canary.alias: names.candidate, production: names.production}
        why = " ".join(reasons)[:MAX_REASON_LENGTH]
        decision = f"{names.id} {record.judged_at}"  # after a restore of the database, a trial can get another verdict
        try:
            self._mover.move(names.model, targets, who="canary", why=why, expected=expected, decision=decision)
        except AliasesElsewhere:
            return False
        except MoveUnrecorded as error:
            log.error("alias_moves_unrecorded", reason=str(error), policy="the next move or start records them")
        except RegistryError:
            state = self._mover.registry.read(names.model)
            if state.decision != decision and _are_named(state.aliases, expected):
                raise
            return _are_named(state.aliases, targets)
        return True


def _are_named(aliases: Mapping[str, str], versions: Mapping[str, str | None]) -> bool:
    return all(aliases.get(alias) == version for alias, version in versions.items())


def _describe(record: TrialRecord, moved: bool, reasons: tuple[str, ...]) -> dict[str, Any]:
    """Return the facts for the ledger entry."""
    names = record.names
    details = {
        "trial": names.id,  # the same in an entry that is recorded again after an interruption
        "model": names.model,
        "candidate": names.candidate,
        "production": names.production,
        "verdict": record.verdict,
        "moved": moved,
        "counts": {metric: list(counts) for metric, counts in record.counts.items()},
        "reasons": list(reasons),
    }
    model = {"name": names.model, "version": names.candidate}
    return build_event(EntryKind.CANARY_VERDICT, name_model_subject(names.model), details, model)
