"""Secrets in AWS Secrets Manager, against moto's server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from traceback import TracebackException
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from botocore.httpsession import URLLib3Session

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


def test_a_read_closes_its_connections(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read does not leave its connections to the garbage collector, which may run much later."""
    manager.create_secret(Name="closed", SecretString="{}")
    close = Mock()
    monkeypatch.setattr(URLLib3Session, "close", close)
    AwsSecret("closed", REGION, 60).read()
    close.assert_called_once_with()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pa55word", "The secret must be a JSON object of strings"),
        ('["pa55word"]', "The secret must be a JSON object of strings"),
        ('{"sentry_dsn": ["pa55word"], "REDIS_URL": null}', "REDIS_URL, SENTRY_DSN in the secret must be a string."),
    ],
)
def test_other_contents(manager: Any, text: str, message: str) -> None:
    """What is not an object, or has a setting that is not a string, is an error that does not contain the secret."""
    manager.create_secret(Name=f"other-{len(text)}", SecretString=text)
    with pytest.raises(SecretsUnavailable) as caught:
        AwsSecret(f"other-{len(text)}", REGION, 60).read()
    assert str(caught.value).startswith(f"SECRETS__URL: {message}")
    described = TracebackException.from_exception(caught.value)
    assert "pa55word" not in "".join(described.format())


def test_other_members_are_ignored(manager: Any) -> None:
    """A secret that RDS manages has a number among its members; members that are not settings may have any type."""
    members = {"username": "ana", "port": 5432, "tags": [], "SENTRY_DSN": "new"}
    manager.create_secret(Name="rds", SecretString=json.dumps(members))
    assert AwsSecret("rds", REGION, 60).read() == {"username": "ana", "SENTRY_DSN": "new"}


@pytest.mark.usefixtures("manager")
def test_a_missing_secret() -> None:
    """The name of a secret that does not exist is reported with AWS's code."""
    with pytest.raises(SecretsUnavailable, match="did not return absent: ResourceNotFoundException"):
        AwsSecret("absent", REGION, 60).read()


@pytest.mark.usefixtures("manager")
def test_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """If AWS cannot be reached, the error names the class of the failure."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SecretsUnavailable, match="cannot be used: EndpointConnectionError"):
        AwsSecret("prod/atalaya", REGION, 60).read()


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        (list_variables("aws.example:443"), "ValueError"),
        ({"AWS_PROFILE": "junk"}, "JSONDecodeError"),
        ({"AWS_PROFILE": "list"}, "AttributeError"),
        ({"AWS_PROFILE": "number"}, "AttributeError"),
        (
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "/absent/pa55word", "AWS_ROLE_ARN": "arn:aws:iam::1:role/x"},
            "FileNotFoundError",
        ),
    ],
)
def test_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], kind: str
) -> None:
    """Variables, programs and files of boto3 that do not work are an error with only the class of the failure."""
    configuration = tmp_path / "config"
    printed = {"junk": "pa55word", "list": r"[\"pa55word\"]", "number": "4711"}
    profiles = (f"[profile {name}]\ncredential_process = /bin/echo {text}\n" for name, text in printed.items())
    configuration.write_text("".join(profiles))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(configuration))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials of earlier tests
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SecretsUnavailable, match=rf"cannot be used: {kind}\. Check the region") as caught:
        AwsSecret("prod/atalaya", REGION, 60).read()
    assert "pa55word" not in "".join(TracebackException.from_exception(caught.value).format())
