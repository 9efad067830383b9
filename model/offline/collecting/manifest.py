"""The manifest of a collected data set: the origin of each image, without its owner."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from model.errors import DatasetError
from model.offline.collecting.collection import Dataset
from model.offline.collecting.splits import Split, choose_split_of_group

NAME = "manifest.json"
_FORMAT = 1


def summarise(dataset: Dataset, classes: Sequence[str], skipped: Mapping[str, int]) -> dict[str, Any]:
    """Return a summary of the data set for JSON. `skipped` counts labelled predictions without an image."""
    counts = dataset.count()
    return {
        "images": len(dataset.images),
        "splits": {split.value: sum(n for (_, own), n in counts.items() if own is split) for split in Split},
        "classes": {label: {split.value: counts[label, split] for split in Split} for label in classes},
        "duplicates": dataset.duplicates,
        "conflicts": [asdict(conflict) for conflict in dataset.conflicts],
        "doubtful": [asdict(conflict) for conflict in dataset.doubtful],
        "skipped": dict(skipped),
    }


def write_manifest(
    folder: Path, dataset: Dataset, summary: Mapping[str, Any], made_at: datetime, since: datetime | None
) -> None:
    """Write the manifest into `folder`. Raises OSError."""
    document = {
        "format": _FORMAT,
        "made_at": made_at.isoformat(timespec="seconds"),
        "since": since.isoformat() if since else None,
        "summary": summary,
        "images": [asdict(image) for image in dataset.images],
    }
    (folder / NAME).write_text(json.dumps(document, indent=1) + "\n")


def read_splits(manifests: Iterable[Path]) -> Mapping[str, Split]:
    """Return the splits of images in earlier data sets, by SHA-256 in hex; `choose_split_of_group` resolves conflicts.

    Raises DatasetError.
    """
    splits_by_image: dict[str, set[Split]] = {}
    for path in manifests:
        try:
            for image in json.loads(path.read_text())["images"]:
                splits_by_image.setdefault(image["sha256"], set()).add(Split(image["split"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise DatasetError(f"{path} is not the manifest.json of a data set of `atalaya dataset build`.") from None
    return {sha256: choose_split_of_group(sha256, splits) for sha256, splits in splits_by_image.items()}
