from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from model.errors import KerasMissing, KerasProcessFailed
from model.offline.keras_process import choose_interpreter, run_in_keras, start_quietly

HERE = Path(sys.executable)


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `child` in the working directory; the test writes its text."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "child.py"


def test_a_named_interpreter_goes_before_every_other(tmp_path: Path) -> None:
    """The interpreter that the caller names is taken even where TensorFlow is importable."""
    assert choose_interpreter(Path("/opt/python"), tmp_path, tensorflow_here=True) == Path("/opt/python")


def test_the_running_interpreter_is_taken_where_it_has_tensorflow(tmp_path: Path) -> None:
    """Inside the Keras environment no other interpreter is looked for."""
    assert choose_interpreter(None, tmp_path, tensorflow_here=True) == HERE


def test_the_keras_environment_beside_the_project_is_the_last_choice(tmp_path: Path) -> None:
    """Without TensorFlow here, .venv-keras in the project root is used."""
    python = tmp_path / ".venv-keras" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert choose_interpreter(None, tmp_path, tensorflow_here=False) == python


def test_without_keras_the_user_is_told_how_to_install_it(tmp_path: Path) -> None:
    """Where no Keras environment exists the error names the command that makes one."""
    with pytest.raises(KerasMissing, match="make keras"):
        choose_interpreter(None, tmp_path, tensorflow_here=False)


def test_the_child_gets_its_options_as_json_and_writes_to_our_output(
    child: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The child's one argument is the options as JSON, and what it prints appears here."""
    child.write_text("import sys\nprint(sys.argv[1:])\n")
    run_in_keras("child", {"out": "å b", "epochs": 2}, HERE)
    assert capfd.readouterr().out == """['{"out": "\\\\u00e5 b", "epochs": 2}']\n"""


def test_a_failing_child_speaks_for_itself_and_raises_here(child: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A child's own error line reaches stderr, and its exit status becomes KerasProcessFailed."""
    child.write_text("import sys\nsys.exit('error: no images')\n")
    with pytest.raises(KerasProcessFailed, match="child failed with exit status 1"):
        run_in_keras("child", {}, HERE)
    assert capfd.readouterr().err == "error: no images\n"


def test_a_killed_child_is_told_apart_from_a_failing_one(child: Path) -> None:
    """A child that a signal ended has printed nothing, so the error names the signal."""
    child.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(KerasProcessFailed, match="ended by signal 9"):
        run_in_keras("child", {}, HERE)


def test_a_quiet_start_drops_native_output_but_not_exceptions(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What C++ writes to stderr while TensorFlow is imported is dropped; errors pass, and stderr comes back."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    with start_quietly():
        os.write(2, b"cudart_stub: no GPU")
    with pytest.raises(ImportError), start_quietly():
        raise ImportError
    os.write(2, b"error: after")
    assert capfd.readouterr().err == "error: after"


def test_the_child_has_no_secret(
    child: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of the environment, the child gets what programs need, and nothing that the gateway keeps to itself."""
    monkeypatch.setenv("AUTH__SIGNING_KEY", "secret")
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "1")
    child.write_text("import os; print(*os.environ)")
    run_in_keras("child", {}, HERE)
    seen = capfd.readouterr().out.split()
    assert "AUTH__SIGNING_KEY" not in seen
    assert {"PATH", "TF_NUM_INTEROP_THREADS"} <= set(seen)
