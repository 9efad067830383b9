"""The variables that Railway sets for every service."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.http.addresses.host_names import check_host_name

RAILWAY_HEALTH_CHECK = "healthcheck.railway.app"
"""The host name in the health checks of Railway."""


class RailwaySettings(BaseModel):
    """Railway sets these variables itself. Leave them empty elsewhere."""

    model_config = ConfigDict(title="Railway")

    railway_public_domain: Annotated[str, AfterValidator(check_host_name)] | None = Field(
        None, description="The public host name, which is allowed and used in the issuer."
    )
    railway_private_domain: Annotated[str, AfterValidator(check_host_name)] | None = Field(
        None, description="The private host name, which is allowed."
    )
    railway_environment_id: str | None = Field(None, description="Shows that the gateway runs on Railway.")
    railway_environment_name: str | None = Field(
        None,
        description="The environment in traces and error reports, such as `pr-12` for a preview. When empty: the value "
        "of `ENVIRONMENT`.",
    )
    railway_project_id: str | None = Field(None, description="`cloud.account.id` in traces.")
    railway_project_name: str | None = Field(None, description="`service.namespace` in traces.")
    railway_service_id: str | None = Field(None, description="`cloud.resource_id` in traces.")
    railway_service_name: str | None = Field(
        None, description="The name of this service in traces and the log, if `OTEL_SERVICE_NAME` is empty."
    )
    railway_volume_mount_path: str | None = Field(
        None, description="Where a volume is mounted. An SQLite database elsewhere causes a warning."
    )
    railway_git_commit_sha: str | None = Field(None, description="Used if `GIT_COMMIT_SHA` is empty.")

    @property
    def railway_domains(self) -> tuple[str, ...]:
        """The host names that Railway gives this service."""
        return tuple(name for name in (self.railway_public_domain, self.railway_private_domain) if name)

    @property
    def on_railway(self) -> bool:
        return self.railway_environment_id is not None or bool(self.railway_domains)
