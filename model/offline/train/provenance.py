"""Describe the origin of a run's starting weights."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from model.registry.artefact import MANIFEST, read_manifest


def describe_init(init: str) -> dict[str, str]:
    """Return the name and source of the starting weights, and the SHA-256 in hex if they come from a file.

    Bytes of the name that are not UTF-8 are replaced, because the model card is UTF-8.
    """
    if init == "imagenet":
        return {"name": "imagenet", "source": "keras.applications"}
    path = Path(init)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = os.fsencode(path.name).decode("utf-8", "replace")
    return {"name": name, "sha256": digest, "source": _read_source(path)}


def _read_source(weights: Path) -> str:
    """Read the source from the metrics.json of an earlier run, a manifest or a README.md next to the weights."""
    metrics, readme = weights.with_name("metrics.json"), weights.with_name("README.md")
    if weights.with_name(MANIFEST).exists():
        return f"The model of the artefact {read_manifest(weights.parent).full_name}: see its model card."
    earlier = json.loads(metrics.read_text()) if metrics.exists() else {}
    if "options" in earlier:  # records written by hand have none
        options = earlier["options"]
        return (
            f"An earlier run of this training on the same split ({earlier['epochs_run']} epochs, batch size "
            f"{options['batch_size']}, peak learning rate {options['peak_learning_rate']}), which started from "
            f"`{earlier['init']['name']}`. {earlier['init']['source']}"
        )
    return _find_origin_item(readme.read_text()) if readme.exists() else "Not documented."


def _find_origin_item(readme: str) -> str:
    """Return the list item that begins with "Origin" as one line, or the whole text if there is none."""
    for item in readme.split("\n- "):
        if item.startswith("Origin"):
            return " ".join(item.split())
    return " ".join(readme.split())
