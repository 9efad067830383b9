"""The examples of the guides, run against a real gateway."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.contract.documents.examples import Examples
from tests.contract.documents.markdown import read_steps
from tests.support.gateway import Gateway
from tests.support.paths import ROOT


def test_examples_of_the_authentication_guide(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """Every command in docs/auth.md can be typed in order, and prints what the page shows."""
    gateway = new_gateway()
    examples = Examples(gateway, tmp_path, {"URL": gateway.base_url})
    for step in read_steps(ROOT / "docs/auth.md"):
        examples.run(step)
