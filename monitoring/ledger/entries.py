"""What is written: entries, their payloads and the signed statements, in the exact texts that are hashed.

Each text is lines of ASCII joined by a line feed, without one at the end; the first line names what it is. They are
explained, with a worked example, in docs/ledger.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

GENESIS = "0" * 64  # what the first entry of a chain names as the hash before it
CHECKPOINTS = "checkpoints"  # the name of their own chain, where a writer's stands otherwise
SALT_BYTES = 32
_NAME_LENGTH = 320


@dataclass(frozen=True, slots=True)
class Draft:
    """What came of one request, before it has a place in a chain. `facts` is the payload, ready for JSON."""

    id: str
    at: str
    facts: dict[str, Any]

    def refused(self, status: int, code: str) -> Draft:
        """The same request, turned away after all: nothing of the image or of the answer stays."""
        return replace(self, facts=self.facts | {"status": status, "code": code} | _NOTHING)


_NOTHING = dict.fromkeys(("model", "preprocessing", "runtime", "image", "output"))


@dataclass(frozen=True, slots=True)
class Payload:
    """What an entry commits to, kept apart so that it can be forgotten. `document` is JSON, byte for byte as hashed.

    The first three columns repeat what the document says, for searching.
    """

    principal: str
    model: str
    status: int
    salt: str
    document: str

    def commitment(self) -> str:
        """SHA-256 in hex over the salt's bytes and the document's."""
        return hashlib.sha256(bytes.fromhex(self.salt) + self.document.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Erasure:
    """The signed statement that an entry's payload was forgotten on purpose."""

    at: str
    key: str
    signature: str

    def text(self, entry_id: str, commitment: str) -> str:
        return "\n".join(("atalaya-ledger-erasure-1", entry_id, commitment, self.at))


@dataclass(frozen=True, slots=True)
class Entry:
    """One link of a writer's chain; `hash` covers the other fields and the hash of the entry before."""

    writer: str
    seq: int
    id: str
    at: str
    commitment: str
    hash: str

    def computed_hash(self, previous: str) -> str:
        lines = ("atalaya-ledger-entry-1", self.writer, str(self.seq), self.id, self.at, self.commitment, previous)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Link:
    """An entry with what it commits to."""

    entry: Entry
    payload: Payload


@dataclass(frozen=True, slots=True)
class Head:
    """A writer's signed word for where its chain ends, and which checkpoint it had seen."""

    writer: str
    seq: int
    hash: str
    checkpoint: int
    key: str = ""
    signature: str = ""

    def text(self) -> str:
        return "\n".join(("atalaya-ledger-head-1", self.writer, str(self.seq), self.hash, str(self.checkpoint)))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the chains of all writers stood that had moved since the checkpoint before.

    `heads` is one line a writer: its name, the number of its last entry and that entry's hash, sorted.
    """

    number: int
    at: str
    heads: str
    previous: str
    hash: str
    key: str
    signature: str

    def text(self) -> str:
        return "\n".join(("atalaya-ledger-checkpoint-1", str(self.number), self.at, self.previous, self.heads))

    def computed_hash(self) -> str:
        return hashlib.sha256(self.text().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Stump:
    """The signed statement that a chain was pruned up to and with this entry, whose hash stays behind."""

    writer: str
    seq: int
    hash: str
    at: str
    key: str = ""
    signature: str = ""

    def text(self) -> str:
        return "\n".join(("atalaya-ledger-stump-1", self.writer, str(self.seq), self.hash, self.at))


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of a checkpoint."""

    writer: str
    seq: int
    hash: str


def format_claims(claims: Sequence[Claim]) -> str:
    return "\n".join(sorted(f"{claim.writer} {claim.seq} {claim.hash}" for claim in claims))


def parse_claims(heads: str) -> list[Claim]:
    """Raises ValueError for what is no list of claims."""
    return [Claim(writer, int(seq), digest) for writer, seq, digest in (line.split(" ") for line in heads.split("\n"))]


def build_payload(draft: Draft, salt: bytes) -> Payload:
    document = json.dumps({"id": draft.id, "at": draft.at, **draft.facts}, sort_keys=True, separators=(",", ":"))
    return Payload(*extract_columns(draft.facts), salt.hex(), document)


def extract_columns(facts: Mapping[str, Any]) -> tuple[str, str, int]:
    """Principal, model and status as the payload's columns repeat them."""
    model = facts["model"]
    name = f"{model['name']}-v{model['version']}" if model else ""
    return plain(facts["principal"]), plain(name), int(facts["status"])


def plain(text: str) -> str:
    """What any database takes as a name: no control characters, nothing that is not Unicode, not too long."""
    if len(text) <= _NAME_LENGTH and text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text[:_NAME_LENGTH])


def written_time(moment: datetime) -> str:
    """UTC to the microsecond; such texts sort by time."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
