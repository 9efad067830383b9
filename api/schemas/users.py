"""The bodies of `/v1/users`, and of what users do with their own accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool, model_validator

from api.schemas.base import ResponseBody
from api.schemas.fields import HIDDEN_NULL, Quota
from auth.accounts.passwords import MAX_LENGTH, MIN_LENGTH
from auth.accounts.store import Quotas, User
from auth.principal import Role, Scope

# Only the schema is here: auth.accounts.passwords enforces the rules and writes the error messages.
NewPassword = Annotated[
    SecretStr,
    Field(
        description="must not be a commonly used password",
        json_schema_extra={"minLength": MIN_LENGTH, "maxLength": MAX_LENGTH},
    ),
]
_QUOTAS = Quotas.__optional_keys__


class _RequestBody(BaseModel):
    # A field that cannot be set is an error; ignoring it would hide the caller's mistake.
    model_config = ConfigDict(extra="forbid")


class _BodyWithQuotas(_RequestBody):
    monthly_requests: Quota | None = Field(None, description="null: unlimited")
    monthly_megapixels: Quota | None = Field(None, description="null: unlimited")

    def quotas(self) -> Quotas:
        """Return the quotas that the body contains."""
        quotas: Quotas = {}
        if "monthly_requests" in self.model_fields_set:
            quotas["monthly_requests"] = self.monthly_requests
        if "monthly_megapixels" in self.model_fields_set:
            quotas["monthly_megapixels"] = self.monthly_megapixels
        return quotas


class NewUser(_BodyWithQuotas):
    name: str = Field(
        description="1 to 64 of the characters a-z 0-9 . _ @ -", json_schema_extra={"pattern": "^[a-z0-9._@-]{1,64}$"}
    )
    role: Role
    password: NewPassword


class UserPatch(_BodyWithQuotas):
    """The fields to change; absent fields stay as they are."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    role: Annotated[Role | None, HIDDEN_NULL] = None
    disabled: Annotated[StrictBool | None, HIDDEN_NULL] = None
    password: Annotated[NewPassword | None, HIDDEN_NULL] = None
    keep_images: Annotated[StrictBool | None, HIDDEN_NULL] = Field(
        None, description="whether the user's images may be kept; false also erases the kept ones"
    )

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        present = self.model_fields_set
        if not present:
            raise ValueError("name at least one field")
        if any(getattr(self, name) is None for name in present - _QUOTAS):
            raise ValueError("only a quota can be null")
        return self

    @property
    def needs_login(self) -> bool:
        """Whether the change lets somebody log in, changes rights, or allows images to be kept.

        Disabling a user only takes rights away.
        """
        gives_access = self.role is not None or self.password is not None or self.disabled is False
        return gives_access or self.keep_images is True

    def describe(self) -> dict[str, str]:
        """Return the detail of the audit record: the names of the fields, and the new role."""
        role = {"role": self.role.value} if self.role else {}
        return {"fields": " ".join(sorted(self.model_fields_set)), **role}


class UserResponse(ResponseBody):
    id: str
    name: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None
    totp: bool = Field(description="whether a login needs a one-time code")
    monthly_requests: int | None
    monthly_megapixels: int | None
    keep_images: bool = Field(description="whether the user's images may be kept for training")

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
            keep_images=user.keep_images,
        )


class Me(ResponseBody):
    """The caller."""

    subject: str
    name: str
    role: Role | None
    scopes: list[Scope]
    expires_at: datetime | None


class ImagePermission(_RequestBody):
    keep: StrictBool = Field(description="whether your images may be kept; false also erases the kept ones")


class ImageKeeping(ResponseBody):
    """Whether the user's images may be kept for training."""

    keep: bool
    keep_days: int | None = Field(description="for how many days; null: the gateway keeps nobody's images")


class PasswordChange(_RequestBody):
    current_password: SecretStr
    new_password: NewPassword


class TotpEnrolment(_RequestBody):
    current_password: SecretStr


class TotpCode(_RequestBody):
    code: SecretStr = Field(description="six digits")


class TotpSecret(ResponseBody):
    """Shown only once; it takes effect when a code confirms it."""

    secret: str = Field(description="base32")
    uri: str = Field(description="otpauth://…, for a QR code")
