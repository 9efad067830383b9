"""The settings of what is recorded, MONITORING__… (audit log), LEDGER__… and IMAGES__…, and of costs: COST__…"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, field_validator

from api.settings.fields import SettingsGroup, split_commas
from api.settings.home import HomePath, resolve_image_store_url
from monitoring.cost.formula import BYTES_IN_GB, RAILWAY, Prices
from monitoring.cost.scenarios import Machine
from monitoring.machine.cgroups import count_processors, memory_limit_bytes
from storage.images.sealing import parse_keys

_CODE_LENGTH = 3


class MonitoringSettings(SettingsGroup, title="Monitoring"):
    """The [audit log](security/audit.md), [usage](generated/metrics.md#usage) and [drift](quality.md#drift)."""

    audit_keep_days: int = Field(
        365,
        ge=1,
        le=36_500,
        description="How many days `atalaya audit prune` and `atalaya upkeep` keep the audit log.",
    )
    usage_callers: int = Field(
        20,
        ge=0,
        le=1000,
        description="How many callers have usage metrics of their own: the first ones since the start. All others "
        "are counted together, as `other`.",
    )
    drift_callers: int = Field(
        10_000,
        ge=0,
        le=1_000_000,
        description="How many callers of each model are tracked individually for [drift](quality.md#drift); the others "
        "are tracked together. 0 turns this off.",
    )


class CostSettings(SettingsGroup, title="Cost"):
    """[Prices](quality.md#cost). The defaults are Railway's prices."""

    vcpu_hour: float = Field(RAILWAY.vcpu_hour, ge=0, description="The price of a processor for an hour.")
    gb_hour: float = Field(RAILWAY.gb_hour, ge=0, description="The price of a gigabyte of memory for an hour.")
    sent_gb: float = Field(RAILWAY.sent_gb, ge=0, description="The price of a gigabyte sent to the network.")
    currency: str = Field(RAILWAY.currency, description="The currency of the prices, by its ISO 4217 code.")
    vcpus: float | None = Field(
        None,
        gt=0,
        description="Processors of the machine that `atalaya cost` compares with a smaller and a larger one; with "
        "several replicas, those of all together. When empty: those that the command may use.",
    )
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="Gigabytes of that machine; with several replicas, those of all together. When empty: those that "
        "the command may use.",
    )

    @field_validator("currency")
    @classmethod
    def _check_currency(cls, value: str) -> str:
        if len(value) != _CODE_LENGTH or not (value.isascii() and value.isupper()):
            raise ValueError("must be the ISO 4217 code of a currency, such as USD")
        return value

    def prices(self) -> Prices:
        return Prices(self.vcpu_hour, self.gb_hour, self.sent_gb, self.currency)

    def machine(self) -> Machine:
        """Return the machine that the settings describe, or else this one."""
        return Machine(
            self.vcpus or count_processors(),
            self.memory_gb or memory_limit_bytes() / BYTES_IN_GB,
        )


class LedgerSettings(SettingsGroup, title="Ledger"):
    """The record of every prediction: [ledger](ledger.md)."""

    enabled: bool = Field(True, description="Whether predictions are recorded.")
    signing_key: SecretStr | None = Field(
        None,
        description="32 random bytes in base64: the Ed25519 key that signs the ledger; required. `atalaya ledger key` "
        "prints the public key that verifies it.",
    )
    public_keys: tuple[str, ...] = Field(
        (), description="Earlier public keys, separated by commas. Their signatures stay valid."
    )
    keep_days: int = Field(
        3650, ge=1, le=36_500, description="How many days `atalaya ledger prune` and `atalaya upkeep` keep predictions."
    )
    spool_folder: HomePath = Field(
        Path("var/spool"),
        description="Where entries wait while the database is unavailable; use a disk that survives a restart.",
    )
    spool_megabytes: int = Field(
        64,
        ge=1,
        le=100_000,
        description="The maximum size of each file in that folder. Every process has one, and 5 MB more for its log.",
    )

    _split_keys = field_validator("public_keys", mode="before")(split_commas)


class ImageSettings(SettingsGroup, title="Images"):
    """The store of images whose owners [allow it](quality/data-sets.md), for training. Off by default."""

    url: Annotated[str, AfterValidator(resolve_image_store_url)] | None = Field(
        None,
        description="`file://FOLDER`, or `s3://BUCKET[/PREFIX][?region=REGION]` of S3 or a compatible service. "
        "One store for each database: images whose owner is not in the database are removed. Off when empty.",
    )
    key: SecretStr | None = Field(
        None,
        description="32 random bytes in base64, which encrypt the images; `openssl rand -base64 32` prints some. "
        "Several, separated by commas: the first encrypts, all decrypt. Without its key an image is lost.",
    )
    keep_days: int = Field(365, ge=1, le=36_500, description="How many days an image is kept; checked every hour.")
    megabytes: int = Field(
        1000, ge=1, le=100_000_000, description="The maximum size of the store. While it is full, no image is added."
    )

    @field_validator("key")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                parse_keys(value.get_secret_value())
            except ValueError:
                raise ValueError("must be 32 random bytes in base64, or several such keys with commas") from None
        return value
