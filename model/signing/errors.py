"""The errors of artefact signatures and their keys.

    ModelError
    ├── ArtefactError
    │   ├── ArtefactUnsigned         artefact_unsigned
    │   ├── SignatureInvalid         signature_invalid
    │   └── ArtefactChanged          artefact_changed
    └── SigningKeyRejected           signing_key_rejected

None of them can be caused by a request.
"""

from __future__ import annotations

from model.errors import ArtefactError, ModelError


class ArtefactUnsigned(ArtefactError):
    """The artefact has no signature, and one is required."""

    code = "artefact_unsigned"


class SignatureInvalid(ArtefactError):
    """The signature is malformed, or another key made it."""

    code = "signature_invalid"


class ArtefactChanged(ArtefactError):
    """The artefact's files differ from those that were signed."""

    code = "artefact_changed"


class SigningKeyRejected(ModelError):
    """A key cannot sign artefacts, or verify their signatures."""

    code = "signing_key_rejected"
