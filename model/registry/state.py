"""The state of one model in a registry: its versions, which never change, and their aliases and tags."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from model.registry.errors import (
    AliasUnchanged,
    InvalidName,
    RegistryError,
    RegistryUnavailable,
    UnknownAlias,
    UnknownVersion,
)
from model.registry.moves import AliasMove, Change, new_move, parse_move

SCHEMA = 1
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"


class Version(Struct, frozen=True):
    """One version of a model. `manifest_sha256`, in hex, covers all of its files; `added_at` is in ISO 8601, UTC."""

    version: str
    manifest_sha256: str
    added_at: str
    tags: Mapping[str, str] = field(default_factory=dict)


class ModelState(Struct, frozen=True):
    """The versions of a model in the order in which they were added, and the version that each alias points to.

    Each change returns a new state with a larger `generation`. `unrecorded` are moves of aliases, in order, that the
    ledger may not have recorded yet. `decision` identifies the last decision that must not be applied twice.
    """

    versions: Mapping[str, Version] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0
    unrecorded: tuple[AliasMove, ...] = ()
    decision: str | None = None

    def find(self, reference: str) -> Version:
        """Return the version for `reference`: the version itself, or "@" and an alias.

        Raises UnknownVersion, UnknownAlias.
        """
        if reference.startswith("@"):
            return self.find(self.find_alias(reference[1:]))
        try:
            return self.versions[reference]
        except KeyError:
            raise UnknownVersion(f"There is no version {reference!r}. These exist: {_list(self.versions)}.") from None

    def find_alias(self, alias: str) -> str:
        """Return the version that the alias points to. Raises UnknownAlias."""
        try:
            return self.aliases[alias]
        except KeyError:
            raise UnknownAlias(f"There is no alias {alias!r}. These exist: {_list(self.aliases)}.") from None

    def add(self, version: Version) -> ModelState:
        return self._change(versions={**self.versions, version.version: version})

    def move_aliases(
        self, targets: Mapping[str, str | None], who: str, why: str, decision: str | None = None
    ) -> ModelState:
        """Point each alias to its version, or remove it for None. Raises InvalidName, UnknownVersion.

        With a `decision`, raises AliasUnchanged if it equals the last one.
        """
        if decision is not None and decision == self.decision:
            raise AliasUnchanged("This decision has already moved the aliases. Nothing was changed.")
        for alias, version in targets.items():
            check_name(alias)
            if version is not None:
                self.find(version)
        changes = {
            alias: Change(self.aliases.get(alias), version)
            for alias, version in targets.items()
            if version != self.aliases.get(alias)
        }
        if not changes:
            return self._change()
        aliases = {**self.aliases, **targets}
        return self._change(
            aliases={alias: version for alias, version in aliases.items() if version is not None},
            unrecorded=(*self.unrecorded, new_move(who, why, changes)),
            decision=decision or self.decision,
        )

    def without_unrecorded(self) -> ModelState:
        """Return the state after all of its moves have been recorded."""
        return self._change(unrecorded=())

    def tag(self, version: str, tags: Mapping[str, str | None]) -> ModelState:
        """Set tags of a version; the value None removes a tag. Raises InvalidName, UnknownVersion."""
        for name in tags:
            check_name(name)
        tagged = self.find(version)
        merged = {name: value for name, value in {**tagged.tags, **tags}.items() if value is not None}
        return self._change(versions={**self.versions, tagged.version: replace(tagged, tags=merged)})

    def _change(self, **members: Any) -> ModelState:
        return replace(self, **members, generation=self.generation + 1)


def check_name(name: str) -> str:
    """Return the name of a model, version, alias or tag if it is also a valid folder name. Raises InvalidName."""
    if not is_name(name):
        raise InvalidName(
            f"{name[:80]!r} is not a name. Use 1 to 64 letters, digits, dots, hyphens, underscores and plus signs, "
            "beginning with a letter or digit."
        )
    return name


def is_name(name: str) -> bool:
    """Whether `check_name` accepts the name."""
    return re.fullmatch(NAME_PATTERN, name) is not None


def serialise_state(state: ModelState) -> bytes:
    """Return the state as JSON."""
    versions = [
        {
            "version": version.version,
            "manifest_sha256": version.manifest_sha256,
            "added_at": version.added_at,
            "tags": dict(version.tags),
        }
        for version in state.versions.values()
    ]
    document = {
        "schema": SCHEMA,
        "generation": state.generation,
        "versions": versions,
        "aliases": dict(state.aliases),
        "unrecorded": [move.as_dict() for move in state.unrecorded],
        "decision": state.decision,
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def parse_state(data: bytes) -> ModelState:
    """Read what `serialise_state` wrote. Raises RegistryUnavailable."""
    try:
        document = json.loads(data)
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']}")
        versions = [Version(**entry) for entry in document["versions"]]
        by_name = {check_name(version.version): version for version in versions}
        aliases = {check_name(alias): version for alias, version in document["aliases"].items()}
        if not set(aliases.values()) <= set(by_name):
            raise ValueError("an alias names no version")
        unrecorded = tuple(map(parse_move, document.get("unrecorded", ())))
        return ModelState(by_name, aliases, int(document["generation"]), unrecorded, document.get("decision"))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, RegistryError) as error:
        raise RegistryUnavailable(
            f"The state of the registry is damaged: {error}. Restore it from a backup, or import the models again."
        ) from error


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"
