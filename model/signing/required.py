"""Verify the signature of an artefact if the configuration requires one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.signing.keys import PublicKey


def verify_required(folder: Path, key: PublicKey | None) -> Mapping[str, str] | None:
    """Return the SHA-256 in hex of the files that `key` has signed; None without a key: no signature is required.

    Signed files that a deployment does not open, such as model.keras, may be absent. Raises the errors of
    `verify_folder`.
    """
    if key is None:
        return None
    from model.signing.folder import verify_folder  # imports cryptography, which is slow to import

    return verify_folder(folder, key, complete=False).files
