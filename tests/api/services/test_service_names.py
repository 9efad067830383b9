"""How a gateway names its deployment in traces and error reports."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

from api.services.runtime import describe_service
from api.settings import Settings

RAILWAY = {
    "railway_project_id": "f4a7e0c2",
    "railway_project_name": "land-use",
    "railway_environment_name": "pr-12",
    "railway_service_id": "c2f0a9d6",
    "railway_service_name": "gateway",
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"service.name": "atalaya", "deployment.environment.name": "development"}),
        (
            {"environment": "production", "otel_service_name": "land"},
            {"service.name": "land", "deployment.environment.name": "production"},
        ),
        (
            RAILWAY,
            {
                "service.name": "gateway",
                "service.namespace": "land-use",
                "deployment.environment.name": "pr-12",
                "cloud.account.id": "f4a7e0c2",
                "cloud.resource_id": "c2f0a9d6",
            },
        ),
        (
            {**RAILWAY, "otel_service_name": "land"},
            {
                "service.name": "land",
                "service.namespace": "land-use",
                "deployment.environment.name": "pr-12",
                "cloud.account.id": "f4a7e0c2",
                "cloud.resource_id": "c2f0a9d6",
            },
        ),
    ],
)
def test_resource_attributes(changes: dict[str, Any], expected: dict[str, str]) -> None:
    """The attributes come from the gateway's settings, and from Railway's variables where those are set."""
    assert describe_service(Settings(**changes)) == {**expected, "service.version": version("atalaya")}
