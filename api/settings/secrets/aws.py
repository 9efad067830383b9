"""A secret of AWS Secrets Manager whose value is a JSON object of settings."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import closing

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from api.errors import SecretsUnavailable
from api.settings.reading.names import list_secret_names

# All but the first come from files, programs, variables, and malformed credentials, which botocore does not check.
_FAILURES = (BotoCoreError, OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError)
_LIMITS = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2})


class AwsSecret:
    """`name` is the secret's name or ARN. boto3 finds the credentials and, without `region`, the region."""

    def __init__(self, name: str, region: str | None, interval_s: float) -> None:
        self.interval_s = interval_s
        self._name = name
        self._region = region
        logging.getLogger("botocore").setLevel(logging.INFO)  # its debug lines contain responses

    def read(self) -> Mapping[str, str]:
        try:
            # A new client for each read: it takes about 10 ms, and keeping one would keep 20 MB.
            with closing(boto3.client("secretsmanager", region_name=self._region, config=_LIMITS)) as client:
                text = client.get_secret_value(SecretId=self._name).get("SecretString", "")
        except ClientError as error:
            reason = error.response.get("Error", {}).get("Code", "unknown error")
            raise SecretsUnavailable(f"AWS Secrets Manager did not return {self._name}: {reason}.") from None
        except _FAILURES as error:
            raise SecretsUnavailable(
                f"AWS Secrets Manager cannot be used: {type(error).__name__}. Check the region, the credentials and, "
                "if it is set, AWS_ENDPOINT_URL."
            ) from None
        return parse_object(text)


def parse_object(text: str) -> Mapping[str, str]:
    """Return the strings of a JSON object. Members that are not settings may have any type, such as a port's number.

    Raises SecretsUnavailable.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise SecretsUnavailable('The secret must be a JSON object of strings, such as {"AUTH__SIGNING_KEY": "…"}.')
    strings = {name: value for name, value in values.items() if isinstance(value, str)}
    others = {name.upper() for name in values.keys() - strings.keys()}
    if wrong := sorted(others.intersection(list_secret_names())):
        raise SecretsUnavailable(f"{', '.join(wrong)} in the secret must be a string.")
    return strings
