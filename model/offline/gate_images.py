"""List the unlabelled images that a gate is fitted and tested on."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from model.errors import DatasetError
from model.offline.dataset import IMAGE_SUFFIXES
from model.offline.negatives.roles import Role, assign_role


class NamedFiles(Struct, frozen=True):
    """Image files, and the category of each."""

    paths: tuple[Path, ...]
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def list_photographs(folder: Path, role: Role) -> NamedFiles:
    """List the images in `folder`/<category>/ whose category has this role. Raises DatasetError if there are none."""
    files = list_categories(folder)
    chosen = [index for index, category in enumerate(files.categories) if assign_role(category) is role]
    if not chosen:
        raise DatasetError(f"{folder} has too few categories: none has the role {role}. Add more categories.")
    return NamedFiles(tuple(files.paths[index] for index in chosen), tuple(files.categories[index] for index in chosen))


def list_categories(folder: Path) -> NamedFiles:
    """List the images in `folder`/<category>/. Raises DatasetError if there are none."""
    pairs = [
        (path, category.name)
        for category in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if category.is_dir()
        for path in sorted(category.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not pairs:
        raise DatasetError(f"No images in {folder}. Expected {folder}/<category>/*.jpg.")
    return NamedFiles(tuple(path for path, _ in pairs), tuple(category for _, category in pairs))
