"""The records of the ledger: entries, payloads and signed statements, with the exact texts that are hashed or signed.

Each text consists of ASCII lines joined by a line feed, without one at the end; the first line names its kind.
docs/ledger.md specifies them, with a worked example.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

CHECKPOINTS = "checkpoints"  # used in place of a writer's name for the chain of checkpoints
SALT_BYTES = 32
NO_REQUEST = 0  # the status of an entry that records an event instead of a request
MODEL_SUBJECT = "model:"
_NAME_LENGTH = 320
# Built once: `json.dumps` with these options builds an encoder for each call. The facts contain no cycles.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False)


class EntryKind(StrEnum):
    """What an entry records: the member `kind` of its document. A document without it records a request."""

    PREDICTION = "prediction"  # a request, even if it got no prediction
    ALIAS_MOVED = "alias_moved"
    LABEL = "label"
    CANARY_VERDICT = "canary_verdict"


class EntryDraft(Struct, frozen=True):
    """One request or event that is not part of a chain yet. `facts` is the payload, ready for JSON."""

    id: str
    at: str
    facts: dict[str, Any]

    def as_refusal(self, status: int, code: str) -> EntryDraft:
        """Return a draft that records the request as rejected, without its image, model and prediction."""
        return replace(self, facts=self.facts | {"status": status, "code": code} | _NO_PREDICTION)


_NO_PREDICTION = dict.fromkeys(("model", "preprocessing", "runtime", "image", "output"))


class Payload(Struct, frozen=True):
    """What an entry commits to, stored apart so that it can be erased. `document` is JSON, byte for byte as hashed.

    The first three fields repeat parts of the document, for queries. `status` is NO_REQUEST for events.
    """

    principal: str
    model: str
    status: int
    salt: str
    document: str

    def compute_commitment(self) -> str:
        """Return the SHA-256, in hex, of the bytes of the salt followed by those of the document."""
        return hashlib.sha256(bytes.fromhex(self.salt) + self.document.encode()).hexdigest()


class Erasure(Struct, frozen=True):
    """The signed statement that an entry's payload was erased on purpose."""

    at: str
    key: str
    signature: str

    def statement(self, entry_id: str, commitment: str) -> str:
        return "\n".join(("atalaya-ledger-erasure-1", entry_id, commitment, self.at))


class LedgerEntry(Struct, frozen=True):
    """One link of a writer's chain; `hash` covers the other fields and the hash of the previous entry."""

    writer: str
    seq: int
    id: str
    at: str
    commitment: str
    hash: str

    def compute_hash(self, previous: str) -> str:
        return hash_entry(self.writer, self.seq, self.id, self.at, self.commitment, previous)


def hash_entry(writer: str, seq: int, entry_id: str, at: str, commitment: str, previous: str) -> str:
    """Return the SHA-256, in hex, of an entry's text, which ends with the hash of the previous entry."""
    lines = ("atalaya-ledger-entry-1", writer, str(seq), entry_id, at, commitment, previous)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class EntryWithPayload(Struct, frozen=True):
    """An entry and the payload that it commits to."""

    entry: LedgerEntry
    payload: Payload

    def read_facts(self) -> dict[str, Any]:
        """Parse the payload's document."""
        facts: dict[str, Any] = json.loads(self.payload.document)
        return facts


class Head(Struct, frozen=True):
    """A writer's signed statement of where its chain ends, and of the last checkpoint that it had read."""

    writer: str
    seq: int
    hash: str
    checkpoint: int
    key: str = ""
    signature: str = ""

    def statement(self) -> str:
        return "\n".join(("atalaya-ledger-head-1", self.writer, str(self.seq), self.hash, str(self.checkpoint)))


class Checkpoint(Struct, frozen=True):
    """A signed statement of the ends of all chains that had grown since the previous checkpoint.

    `heads` has one line for each writer: its name, the number of its last entry and that entry's hash, sorted.
    """

    number: int
    at: str
    heads: str
    previous: str
    hash: str
    key: str
    signature: str

    def statement(self) -> str:
        return "\n".join(("atalaya-ledger-checkpoint-1", str(self.number), self.at, self.previous, self.heads))

    def compute_hash(self) -> str:
        return hashlib.sha256(self.statement().encode()).hexdigest()


class Stump(Struct, frozen=True):
    """The signed statement that a chain was pruned up to and including this entry."""

    writer: str
    seq: int
    hash: str
    at: str
    key: str = ""
    signature: str = ""

    def statement(self) -> str:
        return "\n".join(("atalaya-ledger-stump-1", self.writer, str(self.seq), self.hash, self.at))


class Claim(Struct, frozen=True):
    """One line of a checkpoint: the last entry of a writer."""

    writer: str
    seq: int
    hash: str


def format_claims(claims: Sequence[Claim]) -> str:
    return "\n".join(sorted(f"{claim.writer} {claim.seq} {claim.hash}" for claim in claims))


def parse_claims(heads: str) -> list[Claim]:
    """Parse the lines of a checkpoint. Raises ValueError."""
    return [Claim(writer, int(seq), digest) for writer, seq, digest in (line.split(" ") for line in heads.split("\n"))]


def build_payload(draft: EntryDraft, salt: bytes) -> Payload:
    document = _ENCODER.encode({"id": draft.id, "at": draft.at, **draft.facts})
    return Payload(*extract_columns(draft.facts), salt.hex(), document)


def build_event(
    kind: EntryKind, subject: str, details: Mapping[str, Any], model: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Build the facts of an entry that records an event instead of a request, ready for JSON.

    `subject` is stored as the principal: a person if `details` contains the person's data, which is then erased with
    the person's predictions, and otherwise the result of `name_model_subject`. `model` has a name and a version.
    """
    return {"v": 1, "kind": kind.value, "principal": subject, "model": model, "status": NO_REQUEST, kind.value: details}


def name_model_subject(model: str) -> str:
    """Return the subject of events about a model. No principal's name has this prefix."""
    return f"{MODEL_SUBJECT}{model}"


def extract_columns(facts: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return principal, model and status in the form of the payload's columns."""
    model = facts["model"]
    name = f"{model['name']}-v{model['version']}" if model else ""
    return sanitize_name(facts["principal"]), sanitize_name(name), int(facts["status"])


def sanitize_name(text: str) -> str:
    """Replace characters that databases reject (control characters, lone surrogates) by "?", and truncate the text."""
    if len(text) <= _NAME_LENGTH and text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text[:_NAME_LENGTH])
