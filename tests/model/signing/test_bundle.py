"""Bundles: one signature of one key over one payload, without ambiguity."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from model.signing.bundle import MEDIA_TYPE, sign_payload, verify_bundle
from model.signing.errors import SignatureInvalid
from model.signing.keys import fingerprint
from tests.model.signing.forging import Change, new_key

KEY = new_key()
PAYLOAD = b'{"any": "payload"}'
BUNDLE = sign_payload(PAYLOAD, KEY)


def test_a_bundle_has_the_members_of_the_specification() -> None:
    """A bundle is a Sigstore bundle 0.3 with the key's fingerprint and one signature in a DSSE envelope."""
    bundle = json.loads(BUNDLE)
    envelope = bundle["dsseEnvelope"]
    assert bundle["mediaType"] == MEDIA_TYPE == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["verificationMaterial"] == {
        "publicKey": {"hint": fingerprint(KEY.public_key())},
        "tlogEntries": [],
    }
    assert (b64decode(envelope["payload"]), envelope["payloadType"]) == (PAYLOAD, "application/vnd.in-toto+json")
    assert [signature["keyid"] for signature in envelope["signatures"]] == [""]


def test_the_signature_covers_the_type_and_the_payload() -> None:
    """The signature covers DSSE's encoding, which contains the lengths of the payload's type and of the payload."""
    signature = b64decode(json.loads(BUNDLE)["dsseEnvelope"]["signatures"][0]["sig"])
    encoded = b"DSSEv1 28 application/vnd.in-toto+json 18 " + PAYLOAD
    KEY.public_key().verify(signature, encoded, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        KEY.public_key().verify(signature, PAYLOAD, ec.ECDSA(hashes.SHA256()))
    assert verify_bundle(BUNDLE, KEY.public_key()) == PAYLOAD


def test_a_key_that_the_bundle_does_not_name_can_verify_it() -> None:
    """The fingerprint is optional: a bundle without one verifies only with the key that signed it."""
    bundle = json.loads(BUNDLE)
    bundle["verificationMaterial"]["publicKey"] = {}
    text = json.dumps(bundle).encode()
    assert verify_bundle(text, KEY.public_key()) == PAYLOAD
    with pytest.raises(SignatureInvalid, match="The signature is wrong"):
        verify_bundle(text, new_key().public_key())


def change_signature(bundle: dict[str, Any]) -> None:
    signature = bundle["dsseEnvelope"]["signatures"][0]
    signature["sig"] = b64encode(b64decode(signature["sig"])[:-1] + b"\0").decode()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda bundle: bundle["dsseEnvelope"]["signatures"].append({"sig": "AA=="}), "2 signatures instead of one"),
        (lambda bundle: bundle["dsseEnvelope"].update(payload="e30"), "padding"),
        (lambda bundle: bundle["dsseEnvelope"].update(payload="e3 0="), "base64|character"),
        (lambda bundle: bundle["dsseEnvelope"].update(payload=7), "bytes-like"),
        (lambda bundle: bundle["dsseEnvelope"]["signatures"][0].pop("sig"), "'sig' is missing"),
        (lambda bundle: bundle.update(messageSignature={}), "message signature beside the envelope"),
        (lambda bundle: bundle.pop("verificationMaterial"), "'verificationMaterial' is missing"),
        (lambda bundle: bundle["verificationMaterial"].update(publicKey="key"), "no attribute"),
        (change_signature, "The signature is wrong"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_bundles_are_rejected(change: Change, problem: str) -> None:
    """A bundle with several signatures or payloads, or with members that are missing or malformed, is rejected."""
    bundle = json.loads(BUNDLE)
    change(bundle)
    with pytest.raises(SignatureInvalid, match=problem):
        verify_bundle(json.dumps(bundle).encode(), KEY.public_key())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BUNDLE.replace(b'"payload":', b'"payload": "e30=", "payload":'), "a member twice"),
        (b"[" * 200_000, "nested too deeply|Expecting"),
        (b"[]", "not a JSON object"),
        (BUNDLE.decode().encode("utf-16"), "utf-8"),
        (BUNDLE.replace(b'"tlogEntries": []', b'"tlogEntries": NaN'), "NaN is not JSON"),
        (BUNDLE + b"{}", "Extra data"),
    ],
    ids=["repeated member", "deep", "list", "UTF-16", "NaN", "two documents"],
)
def test_ambiguous_json_is_rejected(text: bytes, problem: str) -> None:
    """JSON that two parsers could read in two ways, or that exhausts a parser, is rejected."""
    with pytest.raises(SignatureInvalid, match=problem):
        verify_bundle(text, KEY.public_key())
