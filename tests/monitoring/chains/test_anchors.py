"""Looking for an anchor among the links of a chain."""

from __future__ import annotations

import pytest

from monitoring.chains.anchors import Anchor, AnchorSearch


@pytest.mark.parametrize(
    ("links", "found", "number_passed"),
    [
        ([(1, "a"), (2, "b")], True, True),
        ([(1, "a"), (2, "x")], False, True),
        ([(1, "a")], False, False),
    ],
)
def test_an_anchor_is_found_by_number_and_hash(links: list[tuple[int, str]], found: bool, number_passed: bool) -> None:
    """An anchor is found if a link has both its number and its hash."""
    search = AnchorSearch(Anchor(2, "b"))
    for number, digest in links:
        search.pass_link(number, digest)
    assert (search.found, search.number_passed) == (found, number_passed)


def test_without_an_anchor_none_is_missing() -> None:
    """Without an anchor the search counts as successful."""
    assert AnchorSearch(None).found
