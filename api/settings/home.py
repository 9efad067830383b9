"""The home: the folder with .env, var/ and the model, regardless of the folder in which a command is started."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote, urlsplit

from pydantic import AfterValidator

from api.errors import SettingsError
from model.backends.oip.address import SCHEMES as ENGINE_SCHEMES
from model.registry.reference import SCHEME

INSTALLATION = Path(__file__).resolve().parents[2]
_MLFLOW_SCHEMES = ("mlflow+http", "mlflow+https")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}(?:[/?]|$)")
_SQLITE = ("sqlite", "sqlite+aiosqlite", "sqlite+pysqlite")


def home_folder() -> Path:
    """Return ATALAYA_HOME, else the folder that the code is installed from. Relative paths in settings start there.

    A copy of the code in site-packages has no such folder, so the working directory is used instead. Raises
    SettingsError.
    """
    configured = os.environ.get("ATALAYA_HOME")
    if configured:
        folder = Path(configured).expanduser().absolute()
        if not folder.is_dir():
            raise SettingsError(f"ATALAYA_HOME: {folder} is not a folder. Create it, or correct the setting.")
        return folder
    return INSTALLATION if (INSTALLATION / "pyproject.toml").is_file() else Path.cwd()


def published_networks_folder() -> Path:
    """Return the folder of the lists that `atalaya proxies refresh` installs."""
    return home_folder() / "var" / "networks"


def resolve_path(path: Path) -> Path:
    return home_folder() / path


def resolve_database_url(url: str) -> str:
    """Make the path of an SQLite file absolute."""
    path = sqlite_file(url)
    if path is None:
        return url
    _, question_mark, query = url.partition("?")
    return f"{url.partition('///')[0]}///{quote(str(home_folder() / path))}{question_mark}{query}"


def sqlite_file(url: str) -> Path | None:
    """Return the path in an SQLite URL, or None for another database.

    SQLAlchemy, which opens the file, decodes %XX in the path.
    """
    scheme, separator, rest = url.partition(":///")
    path = rest.partition("?")[0]
    in_file = scheme.lower() in _SQLITE and separator and path
    return Path(unquote(path)) if in_file else None


def resolve_model_url(url: str) -> str:
    """Make the path of an artefact folder absolute. A home without that folder uses the installation's."""
    scheme, separator, folder = url.partition("://")
    if scheme in ("stub", SCHEME, *ENGINE_SCHEMES) or not folder:
        return url
    return f"{scheme}{separator}{resolve_artefact(Path(folder))}"


def resolve_artefact(folder: Path) -> Path:
    """Make the path of an artefact folder absolute. A home without that folder uses the installation's."""
    candidates = (home_folder() / folder, INSTALLATION / folder)
    return next((path for path in candidates if path.is_dir()), candidates[0])


def resolve_registry_url(url: str) -> str:
    """Make the path of a registry's folder absolute, and remove the final slash of a server's. Raises ValueError."""
    scheme, separator, rest = url.partition("://")
    if scheme in _MLFLOW_SCHEMES and _is_plain_address(f"http://{rest}"):
        return url.rstrip("/")
    if scheme != "file" or not rest:
        raise ValueError(
            "must be file://FOLDER, the folder of a registry of models, or mlflow+http://HOST[:PORT] or "
            "mlflow+https://HOST[:PORT], an MLflow server, whose credentials are in other settings"
        )
    return f"{scheme}{separator}{home_folder() / rest}"


def resolve_image_store_url(url: str) -> str:
    """Make the path of a folder absolute. Raises ValueError."""
    scheme, separator, rest = url.partition("://")
    if scheme == "file" and rest:
        return f"{scheme}{separator}{home_folder() / rest}"
    if scheme != "s3" or not _BUCKET.match(rest):
        raise ValueError("must be file://FOLDER or s3://BUCKET[/PREFIX][?region=REGION], without credentials")
    return url


def read_mlflow_address(registry: str) -> str | None:
    """Return the URL of the MLflow server that a resolved registry URL names; None for a folder."""
    scheme, _, rest = registry.partition("://")
    return f"{scheme.removeprefix('mlflow+')}://{rest}" if scheme in _MLFLOW_SCHEMES else None


def _is_plain_address(url: str) -> bool:
    """Return whether the URL has a host, and neither credentials nor parameters."""
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return valid and parts.username is None and not parts.query and not parts.fragment


def resolve_program(name: str) -> str:
    """Make the path of a program absolute; a name without a slash is looked up in PATH."""
    return str(home_folder() / name) if "/" in name else name


HomePath = Annotated[Path, AfterValidator(resolve_path)]


def describe_installation(requirements: str) -> str:
    """Return the sentence that says how to install a file of `requirements/` into this environment.

    The paths are absolute, because a bare `pip` would be the system's, and a service has another working directory.
    """
    file = INSTALLATION / "requirements" / requirements
    pip = Path(sys.prefix) / "bin" / "pip"
    if file.is_file() and pip.is_file():
        return f"Run `{shlex.join((str(pip), 'install', '--require-hashes', '-r', str(file)))}`."
    return f"Install requirements/{requirements} of the source code into {sys.prefix}."
