"""README.md's first steps, pasted into real shells while the gateway of `make run` serves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.contract.start.checkout import Checkout
from tests.contract.start.conftest import OpenTerminal, Terminal
from tests.support.paths import ROOT
from tests.support.requirements import find_program

BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
DEMO, RUN, FIRST_PREDICTION, NEXT_STEPS = BLOCKS
PASTE = "\x1b[200~{}\x1b[201~\r"  # what a terminal sends in the bracketed paste mode that shells switch on
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")


@pytest.fixture(scope="module")
def demo_output(checkout: Checkout) -> str:
    """The output of the first block."""
    demo = checkout.run(find_program("bash"), "-c", DEMO)
    assert demo.returncode == 0, demo.stderr
    return demo.stdout


@pytest.fixture(scope="module")
def serving(open_terminal: OpenTerminal, demo_output: str) -> Iterator[str]:
    """Run the second block in its own terminal; yields its output once the gateway serves."""
    assert demo_output
    terminal = open_terminal("bash")
    terminal.send(PASTE.format(RUN.rstrip()))
    terminal.expect_exact("Press Ctrl-C to stop.")
    yield terminal.before or ""
    terminal.sendintr()
    assert "rror" not in read_until_end(terminal)


@pytest.fixture(scope="module")
def first_prediction(open_terminal: OpenTerminal, serving: str) -> tuple[Terminal, str]:
    """Paste the third block into an interactive bash; returns the terminal and its output."""
    assert serving
    terminal = open_terminal("bash")
    terminal.send(PASTE.format(FIRST_PREDICTION.rstrip()))
    return terminal, read_until_end(terminal)


def read_until_end(terminal: Terminal) -> str:
    """What the terminal shows until all pasted commands have ended, without escape sequences."""
    terminal.sendline('printf "%s-%s\\n" all done')
    terminal.expect_exact("all-done")
    return ESCAPES.sub("", terminal.before or "")


def check_prediction(output: str) -> None:
    (line,) = re.findall(r'^\{"id":.*\}$', output, re.MULTILINE)
    prediction = json.loads(line)
    assert (prediction["label"], len(prediction["predictions"])) == ("forest", 2)
    assert re.search(r"samples/yellowstone_forest.jpg +forest +0\.\d+", output)
    assert "error" not in output


def test_demo_says_what_happened_and_what_to_do_next(demo_output: str) -> None:
    """`make demo` prints the prediction first, and last that it has stopped its gateway and which command serves."""
    lines = demo_output.strip().splitlines()
    assert lines[0].startswith("samples/yellowstone_forest.jpg: forest, probability 0.")
    assert lines[-1].startswith("The demo has stopped its gateway. `make run PORT=")


def test_run_says_where_it_serves(serving: str, checkout: Checkout) -> None:
    """`make run` ends its output with its URL, the URL of the documentation, and how to stop it."""
    url = f"http://127.0.0.1:{checkout.environment['PORT']}"
    assert serving.splitlines()[-1] == f"Serving at {url}. The documentation is at {url}/docs. "


def test_the_first_prediction_works_when_pasted(first_prediction: tuple[Terminal, str]) -> None:
    """Pasted into an interactive bash, the lines add a user, log the user in and predict; so do the next steps."""
    terminal, output = first_prediction
    assert "ana (client): added." in output
    check_prediction(output)
    terminal.send(PASTE.format(NEXT_STEPS.rstrip()))
    output = read_until_end(terminal)
    assert '{"access_token":"' in output
    assert re.search(r"samples/yellowstone_forest.jpg +forest +0\.\d+", output)


@pytest.mark.usefixtures("first_prediction")
@pytest.mark.parametrize("form", ["bracketed", "plain"])
def test_the_first_prediction_works_in_zsh(open_terminal: OpenTerminal, form: str) -> None:
    """The pasted lines work in zsh, which rejects comments when interactive, with and without bracketed paste."""
    terminal = open_terminal("zsh")
    block = without_user(FIRST_PREDICTION)
    terminal.send(PASTE.format(block.rstrip()) if form == "bracketed" else block)
    check_prediction(read_until_end(terminal))


@pytest.mark.usefixtures("first_prediction")
def test_the_first_prediction_works_in_a_script(checkout: Checkout) -> None:
    """The lines also work when a shell reads them from standard input."""
    script = checkout.run(find_program("bash"), stdin=without_user(FIRST_PREDICTION))
    assert script.stderr == ""
    check_prediction(script.stdout)


def without_user(block: str) -> str:
    """The block without the line that adds the user, who already exists."""
    return re.sub(r"^.*atalaya users add.*\n", "", block, flags=re.MULTILINE)
