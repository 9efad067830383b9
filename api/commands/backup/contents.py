"""Which parts of the database belong in a backup."""

from __future__ import annotations

import auth
import monitoring
from auth import tables as auth_tables
from monitoring.audit import tables as audit_tables
from monitoring.canary import tables as canary_tables
from monitoring.cost import tables as cost_tables
from monitoring.ledger import tables as ledger_tables
from monitoring.quality import tables as quality_tables
from monitoring.quality.drift import tables as drift_tables
from monitoring.tasks import tables as task_tables

MIGRATIONS = {"auth": auth.MIGRATIONS, "monitoring": monitoring.MIGRATIONS}
"""The folders of migrations, by package."""

_GROUPS = (
    auth_tables,
    audit_tables,
    canary_tables,
    cost_tables,
    ledger_tables,
    quality_tables,
    drift_tables,
    task_tables,
)


def list_tables() -> list[str]:
    """Return the names of all tables of this release, except the tables with the versions of the migrations."""
    return [table.name for group in _GROUPS for table in group.metadata.sorted_tables]
