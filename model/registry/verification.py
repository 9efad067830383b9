"""Verify a whole artefact before it is signed or promoted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model.registry.artefact import Manifest, list_present, read_manifest, read_verified
from model.signing.required import verify_required

if TYPE_CHECKING:
    from model.signing.keys import PublicKey


def verify_artefact(folder: Path, key: PublicKey | None = None) -> Manifest:
    """Verify the files that the manifest lists, and the signature if there is a key.

    Files for training may be absent. Raises ArtefactError.
    """
    manifest = read_manifest(folder, verify_required(folder, key))
    for filename in list_present(folder, manifest):
        read_verified(folder, manifest, filename)
    return manifest
