"""The notes of a release, taken from the changelog."""

from __future__ import annotations

import re

import pytest

from deploy.release.notes import NotReleasable, read_notes
from tests.support.paths import ROOT

CHANGELOG = """# Changelog

## Unreleased

## 0.2.0 - 2026-12-01

### Fixed
- A fault.

## 0.1.0 - 2026-11-25
- First.
"""


def test_notes_are_the_section_of_the_version() -> None:
    """The notes are the section of the tag's version, without its heading and without other versions."""
    assert read_notes("v0.2.0", "0.2.0", CHANGELOG) == "### Fixed\n- A fault."
    assert read_notes("v0.1.0", "0.1.0", CHANGELOG) == "- First."


@pytest.mark.parametrize(
    ("tag", "version", "reason"),
    [
        ("v0.3.0", "0.2.0", "tag v0.2.0 instead"),
        ("v0.3.0", "0.3.0", "does not describe 0.3.0"),
        ("0.2.0", "0.2.0", "tag v0.2.0 instead"),
    ],
)
def test_contradictions_stop_a_release(tag: str, version: str, reason: str) -> None:
    """A tag that differs from the project's version, or a version without a section, is an error with its remedy."""
    with pytest.raises(NotReleasable, match=reason):
        read_notes(tag, version, CHANGELOG)


def test_released_versions_have_notes() -> None:
    """The changelog of the project has notes for each version that it names."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (\d\S*)", changelog, re.MULTILINE)
    assert versions
    assert all(read_notes(f"v{version}", version, changelog) for version in versions)
