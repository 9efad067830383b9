"""A registry with versions of the shipped model, for gateways that follow an alias."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from model.registry.artefact import MANIFEST
from model.registry.files import FileRegistry
from tests.support.paths import ARTEFACT

NAME = "efficientnetb0"
ALIAS = "production"
URL = f"registry://{NAME}@{ALIAS}"


class ModelRegistry:
    """A registry in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = FileRegistry(folder)

    @property
    def settings(self) -> dict[str, str]:
        """What makes a gateway follow the alias."""
        return {"MODEL__REGISTRY": f"file://{self.folder}", "MODEL__URL": URL}

    def add(self, version: str, **members: Any) -> None:
        """Add the shipped graph under another version; `members` replace those of its manifest."""
        with TemporaryDirectory() as folder:
            source = Path(folder)
            document = json.loads((ARTEFACT / MANIFEST).read_text())
            names = ("model.onnx", "head.npz")
            files = {name: document["files"][name] for name in names}
            (source / MANIFEST).write_text(json.dumps({**document, "version": version, "files": files, **members}))
            for name in names:
                shutil.copyfile(ARTEFACT / name, source / name)
            self.files.add(source)

    @property
    def promoted(self) -> str:
        return self.files.read(NAME).find_alias(ALIAS)

    def promote(self, version: str) -> None:
        self.files.move_aliases(NAME, {ALIAS: version})

    def find_file(self, version: str, name: str) -> Path:
        """The path of a file in the registry, where a test damages it."""
        return self.files.find_folder(NAME, version) / name
