"""Verify the signature of an artefact if the configuration requires one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.signing.keys import PublicKey


def verify_required(folder: Path, key: PublicKey | None) -> Mapping[str, str] | None:
    """Return the SHA-256 of the files that `key` has signed, or None without a key: then no signature is required.

    Signed files that a deployment does not open, such as model.keras, may be absent. Raises what `verify_folder` does.
    """
    if key is None:
        return None
    from model.signing.folder import verify_folder  # imports cryptography, which is slow to import

    return verify_folder(folder, key, complete=False).files
