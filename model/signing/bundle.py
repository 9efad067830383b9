"""Sigstore bundles with one DSSE envelope, signed by one key (OMS v1.0, sections 4, 6.7 and 6.8).

Envelope: https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature

from model.signing.documents import parse_document
from model.signing.errors import SignatureInvalid
from model.signing.keys import PrivateKey, PublicKey, fingerprint, signature_algorithm

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def sign_payload(payload: bytes, key: PrivateKey) -> bytes:
    """Return a bundle, as JSON, with the payload and its signature."""
    public_key = key.public_key()
    signature = key.sign(_pre_authenticate(payload), signature_algorithm(public_key))
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": fingerprint(public_key)}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle).encode() + b"\n"


def verify_bundle(bundle: bytes, key: PublicKey) -> bytes:
    """Return the payload of a bundle that this key has signed. Raises SignatureInvalid."""
    try:
        document = parse_document(bundle)
        if document["mediaType"] != MEDIA_TYPE:
            raise ValueError(f"its media type is not {MEDIA_TYPE}")
        _check_key(document["verificationMaterial"], key)
        payload, signature = _open_envelope(document)
    except KeyError as error:
        raise SignatureInvalid(f"It is not a signature that a key has made: the member {error} is missing.") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise SignatureInvalid(f"It is not a signature that a key has made: {error}.") from None
    try:
        key.verify(signature, _pre_authenticate(payload), signature_algorithm(key))
    except InvalidSignature:
        raise SignatureInvalid("The signature is wrong: its contents have changed, or another key made it.") from None
    return payload


def _pre_authenticate(payload: bytes) -> bytes:
    """Return the bytes to sign: DSSE's pre-authentication encoding (PAE), which binds the payload to its type."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _check_key(material: Mapping[str, Any], key: PublicKey) -> None:
    """Raise SignatureInvalid if the bundle names another key. Bundles of releases before 1.1 name none.

    This only gives a clearer error message: the signature itself is verified with `key` alone.
    """
    hint = material["publicKey"].get("hint")
    if hint and hint != fingerprint(key):
        raise SignatureInvalid("Another key made the signature. Configure that key, or sign the artefact again.")


def _open_envelope(document: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the payload and its only signature. Raises ValueError, KeyError, TypeError."""
    if "messageSignature" in document:
        raise ValueError("it has a message signature beside the envelope")
    envelope = document["dsseEnvelope"]
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise ValueError(f"its payload is not {PAYLOAD_TYPE}")
    signatures = envelope["signatures"]
    if len(signatures) != 1:
        raise ValueError(f"it has {len(signatures)} signatures instead of one")
    return b64decode(envelope["payload"], validate=True), b64decode(signatures[0]["sig"], validate=True)
