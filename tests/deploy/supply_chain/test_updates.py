"""`make check-update`: the tests that show that an update of dependencies changes nothing for users."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("path", "test"),
    [
        ("tests/model/offline/export/test_export.py", "test_keras_3_7_file_gives_the_same_probabilities"),
        ("tests/model/test_shipped_model.py", "test_probabilities_stay_the_same"),
        ("tests/contract/test_api_schema.py", "test_every_response_is_documented"),
        ("tests/contract/upgrade", "test_previous_release.py"),
    ],
)
def test_updates_are_checked(path: str, test: str) -> None:
    """It runs the tests of a Keras 3.7.0 file, golden predictions, the API's contract and an earlier release's data."""
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    listed = " ".join(re.findall(r"^UNCHANGED\w* := (.*)$", makefile, re.MULTILINE)).split()
    assert path in listed
    target = ROOT / path
    assert test in (target.read_text() if target.is_file() else [each.name for each in target.iterdir()])
    assert [each for each in listed if not (ROOT / each).exists()] == []
