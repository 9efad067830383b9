"""The requests and responses of `/v1/models`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.base import ResponseBody
from api.schemas.fields import HIDDEN_NULL
from api.schemas.history import Proof
from model.registry.artefact import Manifest
from model.registry.moves import MAX_REASON_LENGTH, AliasMove, Change
from model.registry.state import NAME_PATTERN, ModelState, Version
from monitoring.ledger.entries import EntryWithPayload
from monitoring.ledger.payloads import find_payload_problem

_VERSION = "a version, or @ and an alias"

VersionReference = Annotated[str, Field(pattern=f"^@?{NAME_PATTERN}$", description=_VERSION)]


class ModelSummary(ResponseBody):
    name: str
    versions: int
    aliases: dict[str, str] = Field(description="the version that each alias points to")

    @classmethod
    def of(cls, name: str, state: ModelState) -> ModelSummary:
        return cls(name=name, versions=len(state.versions), aliases=dict(state.aliases))


class VersionSummary(ResponseBody):
    version: str
    added_at: datetime
    manifest_sha256: str = Field(description="covers all files of the version")
    aliases: list[str] = Field(description="the aliases that point to the version")
    tags: dict[str, str]

    @classmethod
    def of(cls, version: Version, state: ModelState) -> VersionSummary:
        return cls(**_describe_version(version, state))


class ModelDetails(ResponseBody):
    """A model. Its versions are in the order in which they were added."""

    name: str
    aliases: dict[str, str] = Field(description="the version that each alias points to")
    versions: list[VersionSummary]

    @classmethod
    def of(cls, name: str, state: ModelState) -> ModelDetails:
        versions = [VersionSummary.of(version, state) for version in state.versions.values()]
        return cls(name=name, aliases=dict(state.aliases), versions=versions)


class VersionDetails(VersionSummary):
    classes: list[str]
    files: dict[str, int] = Field(description="bytes of each file")
    results: dict[str, Any] = Field(description="what was measured when the version was exported or imported")

    @classmethod
    def of_manifest(cls, version: Version, state: ModelState, manifest: Manifest) -> VersionDetails:
        return cls(
            **_describe_version(version, state),
            classes=list(manifest.classes),
            files={name: entry.bytes for name, entry in manifest.files.items()},
            results=dict(manifest.results),
        )


def _describe_version(version: Version, state: ModelState) -> dict[str, Any]:
    return {
        "version": version.version,
        "added_at": datetime.fromisoformat(version.added_at),
        "manifest_sha256": version.manifest_sha256,
        "aliases": [alias for alias, named in state.aliases.items() if named == version.version],
        "tags": dict(version.tags),
    }


class AliasTarget(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: VersionReference
    why: str = Field(min_length=1, max_length=MAX_REASON_LENGTH, description="for the record")
    expect: Annotated[Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")] | None, HIDDEN_NULL] = Field(
        None, description="the version that the alias must point to now"
    )


class AliasChange(ResponseBody):
    model_config = ConfigDict(serialize_by_alias=True)

    before: str | None = Field(serialization_alias="from", description="null: no version")
    after: str | None = Field(serialization_alias="to", description="null: no version")


class MovedAliases(ResponseBody):
    model: str
    aliases: dict[str, AliasChange]

    @classmethod
    def of(cls, model: str, changes: Mapping[str, Change]) -> MovedAliases:
        return cls(model=model, aliases=_describe_changes(changes))


class PastMove(ResponseBody):
    """One decision about aliases, as it is recorded in the ledger."""

    id: str = Field(description="of the entry: UUIDv7")
    at: datetime = Field(description="when the move took effect")
    who: str = Field(description="a subject, or cli: and the operating system's user")
    why: str
    aliases: dict[str, AliasChange]
    problem: str | None = Field(description="how the recorded document was changed; null if it is intact")
    proof: Proof

    @classmethod
    def of(cls, recorded: EntryWithPayload, move: AliasMove) -> PastMove:
        entry = recorded.entry
        return cls(
            id=entry.id,
            at=datetime.fromisoformat(move.at),
            who=move.who,
            why=move.why,
            aliases=_describe_changes(move.aliases),
            problem=find_payload_problem(entry, recorded.payload),
            proof=Proof(writer=entry.writer, seq=entry.seq, commitment=entry.commitment, hash=entry.hash),
        )


class MovePage(ResponseBody):
    entries: list[PastMove]
    next: str | None = Field(description="the `cursor` of the next, older page; null on the last one")


def _describe_changes(changes: Mapping[str, Change]) -> dict[str, AliasChange]:
    return {alias: AliasChange(before=change.before, after=change.after) for alias, change in changes.items()}
