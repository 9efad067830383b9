"""The lock files are complete for every supported version of Python, not only for the one that wrote them."""

from __future__ import annotations

from importlib.metadata import distribution, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.supply_chain.pins import read_pins
from tests.support.paths import ROOT


def list_requirements(name: str, extras: set[str], python: str) -> list[Requirement]:
    """Return what a package with these extras requires on this version of Python."""
    version = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    parsed = [Requirement(line) for line in requires(name) or []]
    return [
        each
        for each in parsed
        if each.marker is None or any(each.marker.evaluate({**version, "extra": extra}) for extra in {"", *extras})
    ]


@pytest.mark.parametrize("python", ["3.11.0", "3.11.2", "3.12.0", "3.13.0"])
@pytest.mark.parametrize("lock", ["run", "dev"])
def test_lock_is_complete_for_every_python(lock: str, python: str) -> None:
    """A lock file pins all that its packages require: before Python 3.11.3, redis needs async-timeout."""
    pinned = {canonicalize_name(pin.partition("==")[0]) for pin in read_pins(ROOT / f"requirements/{lock}.txt")}
    extras: dict[str, set[str]] = {name: set() for name in pinned}
    missing = set()
    pending = set(pinned)
    while pending:
        name = pending.pop()
        for each in list_requirements(name, extras[name], python):
            required = canonicalize_name(each.name)
            if required not in pinned:
                missing.add(f"{name} requires {each}")
            elif not each.extras <= extras[required]:
                extras[required] |= each.extras
                pending.add(required)
    assert missing == set()


def test_pinned_packages_are_those_installed() -> None:
    """The installed packages, whose metadata the test above reads, have the pinned versions."""
    pins = read_pins(ROOT / "requirements/dev.txt")
    installed = {f"{pin.partition('==')[0]}=={distribution(pin.partition('==')[0]).version}" for pin in pins}
    assert installed == pins
