"""The warning about a database that the next deployment deletes."""

from __future__ import annotations

import tempfile

import pytest

from api.production import find_storage_risk
from api.settings import Settings


@pytest.mark.parametrize(
    ("environment", "reported"),
    [
        ({"railway_environment_id": "e"}, True),
        ({"railway_environment_id": "e", "railway_volume_mount_path": "/elsewhere"}, True),
        ({"railway_environment_id": "e", "railway_volume_mount_path": "/data"}, False),
    ],
)
def test_sqlite_on_railway_needs_a_volume(environment: dict[str, str], reported: bool) -> None:
    """On Railway an SQLite database outside of the volume is reported."""
    risk = find_storage_risk(Settings(database_url="sqlite:////data/atalaya.db", **environment))
    assert (risk is not None) is reported
    assert risk is None or risk.startswith("DATABASE_URL: /data/atalaya.db is not on a Railway volume")


def test_sqlite_in_memory_is_reported_and_postgresql_is_not() -> None:
    """A database file in a machine's memory is reported; a database server is not."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        assert "is on tmpfs" in (find_storage_risk(Settings(database_url=f"sqlite:///{folder}/a.db")) or "")
    server = Settings(database_url="postgresql://h/atalaya", railway_environment_id="e")
    assert find_storage_risk(server) is None
