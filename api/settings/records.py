"""The settings of the two records: MONITORING__… (audit log) and LEDGER__…"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from api.settings.fields import SettingsGroup
from api.settings.home import HomePath


class MonitoringSettings(SettingsGroup):
    audit_keep_days: int = Field(365, ge=1, le=36_500)
    usage_callers: int = Field(20, ge=0, le=1000)


class LedgerSettings(SettingsGroup):
    enabled: bool = True
    signing_key: SecretStr | None = None
    keep_days: int = Field(3650, ge=1, le=36_500)
    spool_folder: HomePath = Path("var/spool")
    spool_megabytes: int = Field(64, ge=1, le=100_000)
