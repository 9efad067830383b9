"""The error table is whole."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from api.errors import ApiError
from api.http.errors import NEVER_OVER_HTTP, OAUTH_ERRORS, STATUS_BY_ERROR
from auth.errors import AuthError
from model.errors import ModelError
from monitoring.errors import MonitoringError
from storage.errors import StorageError

BASES = (ApiError, AuthError, ModelError, MonitoringError, StorageError)


def _leaves(base: type[Exception]) -> Iterator[type[Exception]]:
    for kind in base.__subclasses__():
        if "code" in vars(kind):
            yield kind
        yield from _leaves(kind)


CLASSES = sorted({kind for base in BASES for kind in _leaves(base)}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_answered(kind: type[Exception]) -> None:
    """An error class has a status, an OAuth name, or a place among those that no request can cause."""
    mapped = {parent for table in (STATUS_BY_ERROR, OAUTH_ERRORS, NEVER_OVER_HTTP) for parent in table}
    assert any(parent in mapped for parent in kind.__mro__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_codes_are_snake_case(kind: type[Exception]) -> None:
    """A code is a stable word in snake case."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)


def test_codes_are_unique() -> None:
    """No two classes share a code, but for the expired token, which RFC 6750 calls invalid like the rest."""
    codes = [kind.code for kind in CLASSES if kind.__name__ != "ExpiredToken"]
    assert len(codes) == len(set(codes))
