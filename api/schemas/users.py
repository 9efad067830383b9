"""The shapes of `/v1/users` and of what users do with their own accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool, model_validator
from pydantic.json_schema import SkipJsonSchema

from api.schemas.predictions import JSON_NUMBER
from auth.accounts.passwords import MAX_LENGTH, MIN_LENGTH
from auth.accounts.store import Quotas, User
from auth.principal import Role

Quota = Annotated[int, Field(ge=0, le=2**53), JSON_NUMBER]
# The rules are the auth room's, and so are its words for a breach.
NewPassword = Annotated[
    SecretStr,
    Field(
        description="none that is guessed first", json_schema_extra={"minLength": MIN_LENGTH, "maxLength": MAX_LENGTH}
    ),
]
_QUOTAS = Quotas.__optional_keys__


class _Asked(BaseModel):
    # A field that may not be set is refused, rather than ignored.
    model_config = ConfigDict(extra="forbid")


class _WithQuotas(_Asked):
    monthly_requests: Quota | None = Field(None, description="null: without bound")
    monthly_megapixels: Quota | None = Field(None, description="null: without bound")

    def quotas(self) -> Quotas:
        """Those that were given."""
        given: Quotas = {}
        if "monthly_requests" in self.model_fields_set:
            given["monthly_requests"] = self.monthly_requests
        if "monthly_megapixels" in self.model_fields_set:
            given["monthly_megapixels"] = self.monthly_megapixels
        return given


class NewUser(_WithQuotas):
    name: str = Field(
        description="1 to 64 of the characters a-z 0-9 . _ @ -", json_schema_extra={"pattern": "^[a-z0-9._@-]{1,64}$"}
    )
    role: Role
    password: NewPassword


class UserPatch(_WithQuotas):
    """What is to become other; what is absent stays."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    role: Role | SkipJsonSchema[None] = None
    disabled: StrictBool | SkipJsonSchema[None] = None
    password: NewPassword | SkipJsonSchema[None] = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        given = self.model_fields_set
        if not given:
            raise ValueError("name at least one field")
        if any(getattr(self, name) is None for name in given - _QUOTAS):
            raise ValueError("only a quota can be null")
        return self

    def told(self) -> dict[str, str]:
        """For the record: which fields, and the new role."""
        role = {"role": self.role.value} if self.role else {}
        return {"fields": " ".join(sorted(self.model_fields_set)), **role}


class UserResponse(BaseModel):
    id: str
    name: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None
    totp: bool = Field(description="whether a log-in needs a one-time code")
    monthly_requests: int | None
    monthly_megapixels: int | None

    @classmethod
    def of(cls, user: User) -> UserResponse:
        return cls(
            id=user.id,
            name=user.name,
            role=user.role,
            created_at=user.created_at,
            disabled_at=user.disabled_at,
            totp=user.totp,
            monthly_requests=user.monthly_requests,
            monthly_megapixels=user.monthly_megapixels,
        )


class PasswordChange(_Asked):
    current_password: SecretStr
    new_password: NewPassword


class TotpBeginning(_Asked):
    current_password: SecretStr


class TotpCode(_Asked):
    code: SecretStr = Field(description="six digits")


class TotpSecret(BaseModel):
    """Shown once, and of use once a code has confirmed it."""

    secret: str = Field(description="base32")
    uri: str = Field(description="otpauth://…, for a QR code")
