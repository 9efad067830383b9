"""Moving aliases: what is checked before, and that each decision is recorded.

The registry holds a move from the moment at which it takes effect until it is recorded. After a crash in between, the
next one who moves an alias of the model, or the next start of a gateway, records it first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from model.registry.errors import AliasesElsewhere, AliasMoved, AliasUnchanged, MoveUnrecorded
from model.registry.files import FileRegistry
from model.registry.moves import AliasMove, Change
from model.registry.reference import PRODUCTION
from model.registry.state import check_name
from model.registry.verification import verify_artefact

if TYPE_CHECKING:
    from model.signing.keys import PublicKey

# Makes a move of an alias of the model of that name durable in the ledger.
RecordMove = Callable[[str, AliasMove], object]


class AliasMover:
    """Moves the aliases of a registry, for one decision at a time. Several processes may decide at the same time.

    With `key`, only signed versions are promoted. In a `mirrored` registry nothing is moved. Every method raises
    RegistryError, and what `record` raises for an earlier move; then nothing is changed. MoveUnrecorded is
    the only error after which the alias has moved.
    """

    def __init__(
        self, registry: FileRegistry, record: RecordMove, key: PublicKey | None = None, *, mirrored: bool = False
    ) -> None:
        self.registry = registry
        self._mirrored = mirrored
        self._record = record
        self._key = key

    def promote(
        self, model: str, version: str, *, who: str, why: str, alias: str = PRODUCTION, expected: str | None = None
    ) -> Mapping[str, Change]:
        """Let the alias name the version, and its `previous` the one that it named before.

        Refuses if the alias does not name `expected`. Returns what each alias named before and after. Raises
        AliasMoved, AliasUnchanged, and ArtefactError for a version that is damaged or not signed as required.
        """
        previous, state = name_previous(alias), self.registry.read(model)
        before, after = state.aliases.get(alias), state.find(version).version
        if expected is not None and before != expected:
            raise AliasMoved(alias, before, expected)
        if before == after:
            raise AliasUnchanged(f"{alias!r} points to {model} {after} already. Nothing was changed.")
        verify_artefact(self.registry.find_folder(model, after), self._key)
        targets = {alias: after} if before is None else {alias: after, previous: before}
        return self.move(model, targets, who=who, why=why, expected={alias: before})

    def roll_back(
        self, model: str, *, who: str, why: str, alias: str = PRODUCTION, expected: str | None = None
    ) -> Mapping[str, Change]:
        """Let the alias name the version that it named before the last promotion, and `previous` the present one.

        Refuses, raises and returns what `promote` does: with `expected`, a second roll-back does not undo the first.
        """
        previous = self.registry.read(model).aliases.get(name_previous(alias))
        if previous is None:
            raise AliasUnchanged(
                f"{model} has no alias {name_previous(alias)!r}, so there is no version to go back to. Promote one."
            )
        return self.promote(model, previous, who=who, why=why, alias=alias, expected=expected)

    def remove(
        self, model: str, alias: str, *, who: str, why: str, expected: str | None = None
    ) -> Mapping[str, Change]:
        """Let the alias name no version. Raises UnknownAlias, AliasMoved."""
        before = self.registry.read(model).find_alias(alias)
        return self.move(model, {alias: None}, who=who, why=why, expected={alias: expected or before})

    def record_moves(self, model: str) -> None:
        """Record the moves that were interrupted before they were recorded."""
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
    ) -> Mapping[str, Change]:
        """Let each alias name its version, or none for None, all at once and without looking at the versions.

        Refuses if an alias does not name its `expected` version, and to repeat a `decision` that was the last one.
        Raises AliasMoved, AliasUnchanged, AliasesElsewhere.
        """
        if self._mirrored:
            raise AliasesElsewhere
        self.record_moves(model)  # first: one that cannot be recorded prevents another
        state = self.registry.move_aliases(model, targets, who=who, why=why, expected=expected, decision=decision)
        try:
            self.record_moves(model)
        except Exception as error:  # whatever it is, the alias was moved
            raise MoveUnrecorded(
                f"{', '.join(targets)} of {model} was moved, but the ledger could not record it: {error} It is "
                "recorded when an alias of the model is moved again, or when a gateway starts."
            ) from error
        return state.unrecorded[-1].aliases


def name_previous(alias: str) -> str:
    """Return the alias that keeps what `alias` named before. Raises InvalidName for an alias that is too long."""
    return "previous" if alias == PRODUCTION else check_name(f"{check_name(alias)}-previous")
