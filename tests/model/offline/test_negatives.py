from __future__ import annotations

import numpy as np
import pytest

from model.offline.negatives.catalogue import KINDS, Kind, list_generated
from model.offline.negatives.roles import Role, assign_role


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("size", [(96, 96), (80, 64)], ids=["square", "wide"])
def test_images_are_the_same_in_every_run(kind: Kind, size: tuple[int, int]) -> None:
    """The same seed gives the same image in the requested size, and another seed gives another image."""
    first, again, other = (kind.generate(np.random.default_rng(seed), size) for seed in (1, 1, 2))
    assert first.shape == (size[1], size[0], 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_fitting_and_testing_share_no_image() -> None:
    """No image is in both the fit and the test, although some kinds are used in both."""
    fit, test = (
        {image.make().tobytes() for image in list_generated(role, 2, (32, 32))} for role in (Role.FIT, Role.TEST)
    )
    assert not fit & test
    assert len(test) == 2 * len(KINDS)


def test_each_category_holds_out_a_kind() -> None:
    """In each category, the test uses all kinds of the fit and at least one other."""
    for category in {kind.category for kind in KINDS}:
        kinds = {
            role: {image.kind.name for image in list_generated(role, 1, (8, 8)) if image.kind.category == category}
            for role in Role
        }
        assert kinds[Role.FIT]
        assert kinds[Role.FIT] < kinds[Role.TEST]


def test_photographs_are_split_by_category() -> None:
    """The role of a category depends on its name, similar names share a role, and about a third are for testing."""
    roles = [assign_role(f"category{number}") for number in range(600)]
    assert 150 <= roles.count(Role.TEST) <= 250
    assert assign_role("cougar_body") == assign_role("cougar_face")
    assert assign_role("Faces") == assign_role("Faces_easy")
