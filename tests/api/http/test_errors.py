"""The mapping from errors to responses is complete."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from api.errors import ApiError
from api.http.errors import NEVER_OVER_HTTP, STATUS_BY_ERROR
from api.http.oauth.forms import OAUTH_ERRORS
from auth.errors import AuthError
from model.errors import ModelError
from monitoring.errors import MonitoringError
from storage.errors import StorageError

BASES = (ApiError, AuthError, ModelError, MonitoringError, StorageError)
KnownError = type[ApiError | AuthError | ModelError | MonitoringError | StorageError]


def find_subclasses(base: KnownError) -> Iterator[KnownError]:
    for kind in base.__subclasses__():
        if "code" in vars(kind):
            yield kind
        yield from find_subclasses(kind)


CLASSES = sorted({kind for base in BASES for kind in find_subclasses(base)}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_response(kind: KnownError) -> None:
    """Every error class is mapped to a status or an OAuth error, or is listed as one that no request can cause."""
    mapped = {parent for table in (STATUS_BY_ERROR, OAUTH_ERRORS, NEVER_OVER_HTTP) for parent in table}
    assert any(parent in mapped for parent in kind.__mro__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_codes_are_snake_case(kind: KnownError) -> None:
    """Error codes are in snake case."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)


def test_codes_are_unique() -> None:
    """No two classes share a code, except ExpiredToken, which RFC 6750 calls invalid_token too."""
    codes = [kind.code for kind in CLASSES if kind.__name__ != "ExpiredToken"]
    assert len(codes) == len(set(codes))
