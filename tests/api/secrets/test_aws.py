"""Secrets in AWS Secrets Manager, against moto's server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from traceback import TracebackException
from typing import Any

import boto3
import pytest

from api.errors import SecretsUnavailable
from api.settings.secrets.aws import AwsSecret
from tests.support.servers.aws import list_variables, running_aws

REGION = "eu-west-1"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_aws() as url:
        yield url


@pytest.fixture
def manager(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of Secrets Manager; the environment makes the gateway use the same server."""
    for name, value in list_variables(server).items():
        monkeypatch.setenv(name, value)
    return boto3.client("secretsmanager", region_name=REGION)


def test_the_newest_version_is_read(manager: Any) -> None:
    """The secret is a JSON object of settings, by name or ARN; a read returns its newest version."""
    created = manager.create_secret(Name="prod/atalaya", SecretString=json.dumps({"SENTRY_DSN": "old"}))
    by_name, by_arn = AwsSecret("prod/atalaya", REGION, 60), AwsSecret(created["ARN"], REGION, 60)
    assert by_name.read() == by_arn.read() == {"SENTRY_DSN": "old"}
    manager.put_secret_value(SecretId="prod/atalaya", SecretString=json.dumps({"SENTRY_DSN": "new"}))
    assert by_name.read() == by_arn.read() == {"SENTRY_DSN": "new"}


@pytest.mark.parametrize("text", ["pa55word", '["pa55word"]', '{"PORT": 8000, "SENTRY_DSN": "pa55word"}'])
def test_other_contents(manager: Any, text: str) -> None:
    """A secret that is not a JSON object of strings is an error whose traceback does not contain the secret."""
    manager.create_secret(Name=f"other-{len(text)}", SecretString=text)
    with pytest.raises(SecretsUnavailable) as caught:
        AwsSecret(f"other-{len(text)}", REGION, 60).read()
    assert str(caught.value).startswith("SECRETS__URL: The secret must be a JSON object of strings")
    described = TracebackException.from_exception(caught.value)
    assert "pa55word" not in "".join(described.format())
    assert "8000" not in str(caught.value)


@pytest.mark.usefixtures("manager")
def test_a_missing_secret() -> None:
    """The name of a secret that does not exist is reported with AWS's code."""
    with pytest.raises(SecretsUnavailable, match="refused absent: ResourceNotFoundException"):
        AwsSecret("absent", REGION, 60).read()


@pytest.mark.usefixtures("manager")
def test_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """If AWS cannot be reached, the error names the class of the failure."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SecretsUnavailable, match="cannot be used: EndpointConnectionError"):
        AwsSecret("prod/atalaya", REGION, 60).read()
