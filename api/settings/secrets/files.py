"""Secrets in a folder, one file for each: /run/secrets of Docker, a Kubernetes volume, or what Vault Agent writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from api.errors import SecretsUnavailable
from api.settings.reading.names import list_secret_names
from api.settings.secrets.settings import LOCAL_INTERVAL_S

MAX_BYTES = 64 << 10


class SecretFiles:
    """The name of a file is that of the setting, in any case. Each read opens all of them, to notice new link targets.

    Other files are not opened, because they may belong to other users.
    """

    interval_s = LOCAL_INTERVAL_S

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> Mapping[str, str]:
        try:
            wanted = set(list_secret_names())
            names = [path.name for path in self._folder.iterdir() if path.name.upper() in wanted and path.is_file()]
            return {name: self._read_file(name) for name in names}
        except OSError as error:
            raise SecretsUnavailable(f"{error.filename or self._folder} cannot be read: {error.strerror}.") from None

    def _read_file(self, name: str) -> str:
        """Raises SecretsUnavailable, because without the value the setting would silently have its default."""
        path = self._folder / name
        if path.stat().st_size > MAX_BYTES:
            raise SecretsUnavailable(f"{path} is larger than {MAX_BYTES >> 10} KiB.")
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError:
            raise SecretsUnavailable(f"{path} is not UTF-8 text.") from None
