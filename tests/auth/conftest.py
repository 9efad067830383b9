from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from auth.accounts.passwords import PasswordHasher


@pytest.fixture
def hasher() -> Iterator[PasswordHasher]:
    with closing(PasswordHasher()) as hasher:
        yield hasher
