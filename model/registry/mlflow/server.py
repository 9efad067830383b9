"""The REST client of an MLflow server, with the few calls that pulling and publishing models need.

It reads and writes artefacts through the server, whatever storage the server uses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from msgspec import Struct

from model.errors import ArtefactError
from model.registry.errors import RegistryAccessDenied, RegistryUnavailable, UnknownModel

_CALLS = "api/2.0/mlflow/"
_ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts/"
_ARTIFACT_SCHEME = "mlflow-artifacts"
_TIMEOUT = httpx.Timeout(10.0, read=60.0)  # the server may first fetch a file from its own storage
_SHOWN_CHARACTERS = 200
# What httpx and the socket module raise for an invalid host name, such as a..b.
_INVALID_HOST = (httpx.InvalidURL, UnicodeError)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and password, or a token; all None for a server without authentication."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


class RegisteredModel(Struct, frozen=True):
    """A model in the registry. `aliases` maps aliases to version numbers.

    `created` distinguishes it from a deleted model of the same name, whose versions had the same numbers.
    """

    name: str
    created: int
    aliases: Mapping[str, str]


class NotFound(RegistryUnavailable):
    """The server does not have the requested object."""


class MlflowServer:
    """The server at `url`. Every method raises RegistryUnavailable and RegistryAccessDenied."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self._url = url
        auth = httpx.BasicAuth(credentials.username, credentials.password or "") if credentials.username else None
        bearer = {"Authorization": f"Bearer {credentials.token}"} if credentials.token and not auth else {}
        # httpx does not follow redirects, so the credentials are never sent to another server.
        with self._reporting_errors():
            self._client = httpx.Client(base_url=url, auth=auth, headers=bearer, timeout=_TIMEOUT)

    def close(self) -> None:
        self._client.close()

    def read_model(self, name: str) -> RegisteredModel:
        """Return the registered model and its aliases. Raises UnknownModel."""
        try:
            found = self.get("registered-models/get", name=name)["registered_model"]
            aliases = {entry["alias"]: str(entry["version"]) for entry in found.get("aliases", ())}
            return RegisteredModel(name, int(found["creation_timestamp"]), aliases)
        except NotFound:
            raise UnknownModel(f"{self._url} has no registered model {name!r}. Publish one of its versions.") from None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise self._make_response_error(error) from error

    def find_artifacts(self, name: str, number: str) -> str:
        """Return the path of a version's artefact folder. Raises ArtefactError, NotFound."""
        found = self.get("model-versions/get-download-uri", name=name, version=number)
        return self.parse_artifact_uri(str(found.get("artifact_uri")))

    def parse_artifact_uri(self, uri: str) -> str:
        """Return the path behind `mlflow-artifacts:`. Raises ArtefactError for any other storage."""
        parts = urlsplit(uri)
        if parts.scheme != _ARTIFACT_SCHEME or parts.netloc not in ("", urlsplit(self._url).netloc):
            raise ArtefactError(
                f"{self._url} does not serve artefacts itself: its clients must read {parts.scheme}:// directly. Start "
                "`mlflow server` with --serve-artifacts and without --default-artifact-root, and publish the model "
                "again."
            )
        return parts.path.strip("/")

    def download(self, path: str, target: Path, max_bytes: int) -> None:
        """Write the artefact file at `path` to `target`. Raises NotFound, and ArtefactError above `max_bytes`."""
        with self._reporting_errors(), self._client.stream("GET", _quote(path)) as response:
            self._check(response)
            with target.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
                    if file.tell() > max_bytes:
                        raise ArtefactError(f"{path} in {self._url} has more than {max_bytes} bytes. Publish it again.")

    def upload(self, path: str, source: Path) -> None:
        """Write the file `source` to `path` of the artefacts. Raises OSError if `source` cannot be read."""
        with source.open("rb") as file, self._reporting_errors():
            self._check(self._client.put(_quote(path), content=file))

    def get(self, call: str, **parameters: str) -> Mapping[str, Any]:
        """Send a GET request to the API, and return the JSON object of the response. Raises NotFound."""
        with self._reporting_errors():
            return self._parse(self._client.get(_CALLS + call, params=parameters))

    def post(self, call: str, **members: Any) -> Mapping[str, Any]:
        """Send a POST request to the API, and return the JSON object of the response. Raises NotFound."""
        with self._reporting_errors():
            return self._parse(self._client.post(_CALLS + call, json=members))

    def _parse(self, response: httpx.Response) -> Mapping[str, Any]:
        self._check(response)
        try:
            document = response.json()
        except (ValueError, RecursionError) as error:
            raise self._make_response_error(error) from error
        if not isinstance(document, dict):
            raise self._make_response_error(TypeError(f"{type(document).__name__} is not an object"))
        return document

    def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        problem = f"{self._url} responds with {response.status_code}: {_read_message(response)}"
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise RegistryAccessDenied(
                f"{problem}. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                "MLFLOW_TRACKING_TOKEN, to credentials that may use the model."
            )
        error = NotFound if response.status_code == HTTPStatus.NOT_FOUND else RegistryUnavailable
        raise error(f"{problem}. Check that this is an MLflow server, and its log.")

    def _make_response_error(self, error: Exception) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"{self._url} does not respond like an MLflow server ({type(error).__name__}). Check MODEL__REGISTRY."
        )

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, *_INVALID_HOST) as error:
            reason = str(error) or type(error).__name__
            raise RegistryUnavailable(f"{self._url} cannot be reached: {reason}. Check that it runs.") from error


def _read_message(response: httpx.Response) -> str:
    """Return the error message of MLflow, or of another server, as one short line without a full stop."""
    text = response.read().decode(errors="replace")
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        text = str(json.loads(text)["message"])
    line = "".join(filter(str.isprintable, text))[:_SHOWN_CHARACTERS].strip()
    return line.rstrip(".") or response.reason_phrase


def _quote(path: str) -> str:
    return _ARTIFACTS + quote(path)
