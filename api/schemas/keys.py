"""The bodies of `/v1/keys`, which the command line uses, too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.schemas.base import ResponseBody
from api.schemas.fields import JSON_NUMBER, PrintableName, Quota
from auth.api_keys.store import OVERLAP, ApiKey, KeyTerms
from auth.principal import Scope

MAX_DAYS = 366
MAX_OVERLAP_HOURS = 30 * 24
DEFAULT_DAYS = 90
DEFAULT_OVERLAP_HOURS = OVERLAP // timedelta(hours=1)


def _normalize_network(text: str) -> str:
    if "%" in text:  # an IPv6 zone is meaningful on one machine only
        raise ValueError("must be an address or a network without a zone")
    return str(ip_network(text))


Network = Annotated[str, AfterValidator(_normalize_network), Field(json_schema_extra={"format": "ip-network"})]
Days = Annotated[int, Field(ge=1, le=MAX_DAYS, description="from now"), JSON_NUMBER]


class NewKey(BaseModel):
    """The terms of a new key."""

    model_config = ConfigDict(extra="forbid")

    name: PrintableName
    scopes: list[Scope] = Field([Scope.PREDICT], min_length=1, max_length=len(Scope))
    expires_days: Days = DEFAULT_DAYS
    addresses: list[Network] = Field([], max_length=16, description="where the key may be used; empty: anywhere")
    rate: str | None = Field(None, pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$", examples=["60/minute"])
    monthly_requests: Quota | None = None
    monthly_megapixels: Quota | None = None

    def terms(self) -> KeyTerms:
        return KeyTerms(
            name=self.name,
            scopes=frozenset(self.scopes),
            expires_at=in_days(self.expires_days),
            addresses=tuple(map(ip_network, self.addresses)),
            rate=self.rate,
            monthly_requests=self.monthly_requests,
            monthly_megapixels=self.monthly_megapixels,
        )


class Rotation(BaseModel):
    """How to rotate a key."""

    model_config = ConfigDict(extra="forbid")

    overlap_hours: Annotated[int, Field(ge=0, le=MAX_OVERLAP_HOURS), JSON_NUMBER] = Field(
        DEFAULT_OVERLAP_HOURS, description="how long the old secret stays valid"
    )
    expires_days: Days | None = Field(None, description="from now; if absent, the expiry does not change")

    @property
    def overlap(self) -> timedelta:
        return timedelta(hours=self.overlap_hours)

    @property
    def expires_at(self) -> datetime | None:
        return None if self.expires_days is None else in_days(self.expires_days)


class Revocation(BaseModel):
    """What to revoke together with a key."""

    model_config = ConfigDict(extra="forbid")

    leaked: bool = Field(False, description="others may have the key: `cascade` is then true by default")
    cascade: bool | None = Field(None, description="also revoke the keys that were created with it, and so on")

    @property
    def includes_descendants(self) -> bool:
        return self.leaked if self.cascade is None else self.cascade

    def describe(self, key: ApiKey, revoked: ApiKey) -> dict[str, str]:
        """Return the detail of the audit record of `revoked`, one of the keys revoked together with `key`."""
        reason = {"reason": "leaked"} if self.leaked else {}
        return reason if revoked.id == key.id else {**reason, "with": f"key:{key.id}"}


class KeyResponse(ResponseBody):
    """A key without its secret."""

    id: str
    name: str
    user_id: str
    user: str
    scopes: list[Scope]
    addresses: list[str]
    rate: str | None
    monthly_requests: int | None
    monthly_megapixels: int | None
    created_at: datetime
    expires_at: datetime
    previous_until: datetime | None = Field(description="until when the secret before the last rotation is valid")
    revoked_at: datetime | None
    last_used_at: datetime | None
    parent_id: str | None = Field(description="the key that created this one; null if its owner did after a login")

    @classmethod
    def of(cls, key: ApiKey) -> KeyResponse:
        return cls(**_list_fields(key))


class KeyWithSecret(KeyResponse):
    key: str = Field(description="the whole key, shown only in this response")

    @classmethod
    def of_secret(cls, key: ApiKey, text: str) -> KeyWithSecret:
        return cls(**_list_fields(key), key=text)


def _list_fields(key: ApiKey) -> dict[str, Any]:
    terms = key.terms
    return {
        "id": key.id,
        "name": terms.name,
        "user_id": key.user_id,
        "user": key.user_name,
        "scopes": sorted(terms.scopes),
        "addresses": [str(network) for network in terms.addresses],
        "rate": terms.rate,
        "monthly_requests": terms.monthly_requests,
        "monthly_megapixels": terms.monthly_megapixels,
        "created_at": key.created_at,
        "expires_at": terms.expires_at,
        "previous_until": key.previous_until,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "parent_id": key.parent_id,
    }


def in_days(days: int) -> datetime:
    """Return the moment this many days from now, in UTC."""
    return datetime.now(UTC) + timedelta(days=days)
