"""The examples of the guides, run against a real gateway."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from auth.login.data_keys import new_data_key
from tests.contract.documents.examples import Examples
from tests.contract.documents.markdown import Step, read_steps
from tests.support.gateway import Gateway
from tests.support.paths import ROOT
from tests.support.polling import wait_until

pytestmark = pytest.mark.long
# In place of an authenticator: each call returns the code of the next half minute, so that none is used twice.
OATHTOOL = """#!/usr/bin/env python3
import base64, hmac, pathlib, sys, time
calls = pathlib.Path(sys.argv[0] + ".calls")
number = len(calls.read_text()) if calls.exists() else 0
calls.write_text("x" * (number + 1))
step = int(time.time()) // 30 + number
digest = hmac.digest(base64.b32decode(sys.argv[-1]), step.to_bytes(8), "sha1")
offset = digest[-1] % 16
print(f"{(int.from_bytes(digest[offset : offset + 4]) % 2**31) % 10**6:06}")
"""


def wait_until_recorded(gateway: Gateway) -> None:
    """Wait for predictions that a busy machine has spooled: they are not read or counted until they are recorded."""
    wait_until(lambda: gateway.metric("atalaya_ledger_spooled_entries") == 0)


def test_examples_of_the_authentication_guide(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """Every command in docs/security/auth.md can be typed in order, and prints what the page shows."""
    gateway = new_gateway()
    examples = Examples(gateway, tmp_path, {"URL": gateway.base_url})
    for step in read_steps(ROOT / "docs/security/auth.md"):
        examples.run(step)


@pytest.mark.usefixtures("within_one_month")
def test_examples_of_the_guide_to_users(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """Every command in docs/security/users.md can be typed in order, and prints what the page shows."""
    gateway = new_gateway(AUTH__DATA_KEY=new_data_key())
    gateway.add_user("adam", "admin")
    authenticator = tmp_path / "oathtool"
    authenticator.write_text(OATHTOOL)
    authenticator.chmod(0o755)
    examples = Examples(gateway, tmp_path, {"URL": gateway.base_url})
    for step in read_steps(ROOT / "docs/security/users.md"):
        wait_until_recorded(gateway)
        examples.run(step)


@pytest.mark.parametrize("page", ["install", "use", "maintain"])
def test_examples_of_the_first_guides(new_gateway: Callable[..., Gateway], tmp_path: Path, page: str) -> None:
    """The commands in the guides to installation, use and maintenance can be typed, and print what the pages show."""
    gateway = new_gateway()
    examples = Examples(gateway, tmp_path, {"URL": gateway.base_url})
    for step in read_steps(ROOT / f"docs/{page}.md"):
        wait_until_recorded(gateway)
        examples.run(step)


def test_wrong_examples_are_found(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """An example whose status, members or text differ from what the guide shows is found."""
    gateway = new_gateway(MODEL__URL="stub://")
    examples = Examples(gateway, tmp_path, {"URL": gateway.base_url})
    right = Step("curl -i $URL/livez", 'HTTP/1.1 200 OK\n…\n\n{"status":"alive"}\n')
    examples.run(right)
    for wrong in (
        Step(right.command, right.output.replace("200 OK", "204 No Content")),
        Step(right.command, right.output.replace("status", "state")),
        Step("curl -s $URL/auth/token", '{"error":"invalid_client","error_description":"No."}\n'),
        Step("atalaya users disable nobody", "nobody (client): disabled.\n"),
    ):
        with pytest.raises(AssertionError):
            examples.run(wrong)
