"""The file in which the pulling process reports to all workers why the mirror does not follow the MLflow server."""

from __future__ import annotations

from api.settings import Settings
from storage.private_files import replace_private_file

_FILE = ".problem"


def write_problem(settings: Settings, code: str | None) -> None:
    """Write the code of the problem, or None if there is no problem. Raises OSError."""
    folder = settings.model.mirror_folder
    folder.mkdir(parents=True, exist_ok=True)
    if read_problem(settings) != code:
        with replace_private_file(folder / _FILE) as (_, file):
            file.write(code or "")


def read_problem(settings: Settings) -> str | None:
    """Return the code of the problem, or None if there is no problem or no MLflow server."""
    if settings.model.mlflow_url is None:
        return None
    try:
        return (settings.model.mirror_folder / _FILE).read_text() or None
    except OSError:
        return None
