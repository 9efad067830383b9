from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.requirements import find_program


@pytest.fixture
def debian_tool() -> Callable[[str], str]:
    """Finds promtool and amtool by name; without them the test is skipped, or failed when CI=true."""
    return lambda name: find_program(name, packages="prometheus prometheus-alertmanager")
