"""The two versions that a trial compares."""

from __future__ import annotations

import hashlib

from msgspec import Struct

from model.registry.state import ModelState


class Contest(Struct, frozen=True):
    """A candidate and the version in production. The digests are the SHA-256 of their manifests, in hex."""

    model: str
    candidate: str
    candidate_digest: str
    production: str
    production_digest: str

    @property
    def id(self) -> str:
        """Identifies the two artefacts, so that evidence about other artefacts is not mixed with theirs."""
        members = (self.model, self.candidate_digest, self.production_digest)
        return hashlib.sha256("\n".join(members).encode()).hexdigest()


def find_contest(model: str, state: ModelState, *, production: str, candidate: str) -> Contest | None:
    """Return the versions that two aliases point to; None if no candidate exists, or if it is already in production.

    Raises UnknownAlias if there is no version in production.
    """
    current = state.find("@" + production)
    version = state.aliases.get(candidate)
    if version is None or version == current.version:
        return None
    tried = state.find(version)
    return Contest(model, tried.version, tried.manifest_sha256, current.version, current.manifest_sha256)
