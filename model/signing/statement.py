"""The signed statement about a folder: in-toto with the predicate of OMS (OMS v1.0, sections 5 and 6.5)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct

from model.signing.documents import parse_document, parse_text
from model.signing.errors import SignatureInvalid

_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_HASH = "sha256"
_DIGEST = re.compile("[0-9a-f]{64}")


class Statement(Struct, frozen=True):
    """A folder's name (informative only), the SHA-256 of its files in hex by relative path, and the ignored paths."""

    name: str
    files: Mapping[str, str]
    ignored: tuple[str, ...] = ()


def write_statement(statement: Statement) -> bytes:
    """Return the statement as JSON. The files are sorted by the code points of their paths."""
    digests = dict(sorted(statement.files.items()))
    document = {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": statement.name, "digest": {_HASH: _root_digest(digests.values())}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": _HASH,
                "allow_symlinks": False,
                "ignore_paths": list(statement.ignored),
            },
            "resources": [{"name": name, "algorithm": _HASH, "digest": digest} for name, digest in digests.items()],
        },
    }
    return json.dumps(document, indent=2).encode()


def parse_statement(payload: bytes) -> Statement:
    """Read the payload of a verified bundle. Raises SignatureInvalid."""
    try:
        return _parse(parse_document(payload))
    except KeyError as error:
        raise SignatureInvalid(f"The signed statement lacks the member {error}.") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise SignatureInvalid(f"The signed statement is not one of OpenSSF Model Signing v1.0: {error}.") from None


def _parse(document: Mapping[str, Any]) -> Statement:
    for member, expected in (("_type", _STATEMENT_TYPE), ("predicateType", _PREDICATE_TYPE)):
        if document[member] != expected:
            raise ValueError(f"its {member} is not {expected}")
    (subject,) = document["subject"]
    predicate = document["predicate"]
    ignored = _parse_serialization(predicate["serialization"])
    resources = [_parse_resource(resource) for resource in predicate["resources"]]
    files = dict(resources)
    if not files or len(files) != len(resources):
        raise ValueError("it lists no file, or a file twice")
    if subject["digest"][_HASH] != _root_digest(files.values()):
        raise ValueError("its root digest differs from its list of files")
    return Statement(parse_text(subject["name"]), files, ignored)


def _parse_serialization(serialization: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ignored paths. Links are never followed, whatever the signer allowed."""
    method, hash_type = serialization["method"], serialization["hash_type"]
    if (method, hash_type) != ("files", _HASH):
        raise ValueError(f"it lists {method!r} by {hash_type!r}; only files by SHA-256 are supported")
    if type(serialization["allow_symlinks"]) is not bool:
        raise ValueError("its allow_symlinks is neither true nor false")
    return tuple(parse_text(path) for path in serialization.get("ignore_paths", ()))


def _parse_resource(resource: Mapping[str, Any]) -> tuple[str, str]:
    name, digest = parse_text(resource["name"]), parse_text(resource["digest"])
    path = PurePosixPath(name)
    # Releases before 1.1 use "." as the name of a model that consists of one file.
    if path.is_absolute() or ".." in path.parts or "\0" in name or str(path) != name:
        raise ValueError(f"{name!r} is not a path inside the folder")
    if resource["algorithm"] != _HASH or not _DIGEST.fullmatch(digest):
        raise ValueError(f"the digest of {name!r} is not a SHA-256")
    return name, digest


def _root_digest(digests: Iterable[str]) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
