"""Move aliases: check each move beforehand, and record each decision.

The registry keeps a move from the moment it takes effect until it is recorded. If a process crashes in between, the
next move of an alias of the model, or the next start of a gateway, records it first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from model.registry.errors import AliasesElsewhere, AliasMoved, AliasUnchanged, MoveUnrecorded
from model.registry.files import FileRegistry
from model.registry.moves import AliasMove, Change
from model.registry.reference import PRODUCTION
from model.registry.state import check_name
from model.registry.verification import verify_artefact

if TYPE_CHECKING:
    from model.signing.keys import PublicKey

# Records a move of an alias of the named model durably in the ledger.
RecordMove = Callable[[str, AliasMove], object]


class AliasMover:
    """Moves the aliases of a registry. Several processes may use it at the same time.

    With `key`, only signed versions are promoted. A `mirrored` registry rejects all moves. Every method raises
    RegistryError, and whatever `record` raises for an earlier move. An error means that no alias has moved, except
    MoveUnrecorded, which is raised after the move.
    """

    def __init__(
        self, registry: FileRegistry, record: RecordMove, key: PublicKey | None = None, *, mirrored: bool = False
    ) -> None:
        self.registry = registry
        self._mirrored = mirrored
        self._record = record
        self._key = key

    def promote(
        self,
        model: str,
        version: str,
        *,
        who: str,
        why: str,
        alias: str = PRODUCTION,
        expected: str | None = None,
        before_move: Callable[[Change], object] = lambda _: None,
    ) -> Mapping[str, Change]:
        """Point the alias to the version, and its `previous` alias to the version before.

        `before_move` is called with the change of the alias after all checks. If it raises, no alias moves.

        Returns the versions of each alias before and after. Raises AliasMoved if the alias does not point to
        `expected`, AliasUnchanged, and ArtefactError if the version is damaged or not signed as required.
        """
        previous, state = name_previous(alias), self.registry.read(model)
        before, after = state.aliases.get(alias), state.find(version).version
        if expected is not None and before != expected:
            raise AliasMoved(alias, before, expected)
        if before == after:
            raise AliasUnchanged(f"{alias!r} points to {model} {after} already. Nothing was changed.")
        verify_artefact(self.registry.find_folder(model, after), self._key)
        targets = {alias: after} if before is None else {alias: after, previous: before}
        call = partial(before_move, Change(before, after))
        return self.move(model, targets, who=who, why=why, expected={alias: before}, before_move=call)

    def roll_back(
        self,
        model: str,
        *,
        who: str,
        why: str,
        alias: str = PRODUCTION,
        expected: str | None = None,
        before_move: Callable[[Change], object] = lambda _: None,
    ) -> Mapping[str, Change]:
        """Point the alias to the version that it had before the last promotion, and `previous` to the current one.

        Calls `before_move` like `promote`. Returns and raises the same as `promote`. With `expected`, a repeated
        rollback does not undo the first.
        """
        previous = self.registry.read(model).aliases.get(name_previous(alias))
        if previous is None:
            raise AliasUnchanged(
                f"{model} has no alias {name_previous(alias)!r}, so there is no previous version to roll back to. "
                "Promote one."
            )
        return self.promote(model, previous, who=who, why=why, alias=alias, expected=expected, before_move=before_move)

    def remove(
        self, model: str, alias: str, *, who: str, why: str, expected: str | None = None
    ) -> Mapping[str, Change]:
        """Remove the alias. Raises UnknownAlias, AliasMoved."""
        before = self.registry.read(model).find_alias(alias)
        return self.move(model, {alias: None}, who=who, why=why, expected={alias: expected or before})

    def record_moves(self, model: str) -> None:
        """Record the moves that have taken effect but are not recorded yet."""
        self.registry.record_moves(model, lambda move: self._record(model, move))

    def move(
        self,
        model: str,
        targets: Mapping[str, str | None],
        *,
        who: str,
        why: str,
        expected: Mapping[str, str | None],
        decision: str | None = None,
        before_move: Callable[[], object] = lambda: None,
    ) -> Mapping[str, Change]:
        """Point each alias to its version, or remove it for None, all at once and without verifying the versions.

        Calls `before_move` when the earlier moves are recorded; if it raises, no alias moves. Raises AliasMoved if an
        alias does not point to its `expected` version, AliasUnchanged if `decision` equals the last one, and
        AliasesElsewhere.
        """
        if self._mirrored:
            raise AliasesElsewhere
        self.record_moves(model)  # must come first: while an earlier move cannot be recorded, no alias may move
        before_move()
        state = self.registry.move_aliases(model, targets, who=who, why=why, expected=expected, decision=decision)
        try:
            self.record_moves(model)
        except Exception as error:  # whatever the error is, the alias has moved
            raise MoveUnrecorded(
                f"{', '.join(targets)} of {model} was moved, but the ledger could not record it: {error} It is "
                "recorded when an alias of the model is moved again, or when a gateway starts."
            ) from error
        return state.unrecorded[-1].aliases


def name_previous(alias: str) -> str:
    """Return the alias that points to the previous version of `alias`. Raises InvalidName if `alias` is too long."""
    return "previous" if alias == PRODUCTION else check_name(f"{check_name(alias)}-previous")
