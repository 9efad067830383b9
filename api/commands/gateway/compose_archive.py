"""The files that docker-compose.yml needs, as an archive that a host with nothing but Docker and tar can unpack."""

from __future__ import annotations

import io
import secrets
import tarfile
import time
from collections.abc import Mapping

PASSWORD_BYTES = 24
_FOLDER = "secrets"
# The files are readable by all, because the containers run as different users; the folder excludes the host's users.
# The owner can write them, to rotate a secret.
_FOLDER_MODE, _SECRET_MODE, _ENV_MODE = 0o700, 0o644, 0o600
_ENV = f"""\
# What docker compose starts: core, and optionally tls and monitoring.
COMPOSE_PROFILES=core,tls,monitoring
# The gateway's public name. For localhost, Caddy signs the certificate itself.
DOMAIN=localhost
SECRETS_FOLDER=./{_FOLDER}
"""


def build_compose_archive(keys: Mapping[str, str]) -> bytes:
    """Return a tar archive of `.env` and a folder with the gateway's `keys` and the passwords of the other services."""
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    files = {
        **keys,
        "DATABASE_URL": f"postgresql://atalaya:{password}@postgres:5432/atalaya",
        "POSTGRES_PASSWORD": password,
        "GRAFANA_PASSWORD": secrets.token_urlsafe(PASSWORD_BYTES),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, ".env", _ENV, _ENV_MODE)
        folder = tarfile.TarInfo(_FOLDER)
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, _FOLDER_MODE, int(time.time())
        archive.addfile(folder)
        for name, text in files.items():
            _add(archive, f"{_FOLDER}/{name}", text, _SECRET_MODE)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, path: str, text: str, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode, entry.mtime = len(text.encode()), mode, int(time.time())
    archive.addfile(entry, io.BytesIO(text.encode()))
