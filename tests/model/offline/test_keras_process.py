from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from model.errors import KerasMissing, KerasProcessFailed
from model.offline.keras_process import choose_interpreter, run_in_keras, silence_stderr

THIS_INTERPRETER = Path(sys.executable)


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a module `child` in the working directory; the test writes its source."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "child.py"


def test_configured_interpreter_has_priority(tmp_path: Path) -> None:
    """The configured interpreter is used even when this one has TensorFlow."""
    assert choose_interpreter(Path("/opt/python"), tmp_path, has_tensorflow=True) == Path("/opt/python")


def test_running_interpreter_is_used_when_it_has_tensorflow(tmp_path: Path) -> None:
    """In the Keras environment, the running interpreter is used."""
    assert choose_interpreter(None, tmp_path, has_tensorflow=True) == THIS_INTERPRETER


def test_keras_environment_in_the_project_root_is_the_fallback(tmp_path: Path) -> None:
    """Without TensorFlow in this interpreter, .venv-keras in the project root is used."""
    python = tmp_path / ".venv-keras" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert choose_interpreter(None, tmp_path, has_tensorflow=False) == python


def test_error_without_keras_says_how_to_install_it(tmp_path: Path) -> None:
    """Without a Keras environment, the error names the command that creates one."""
    with pytest.raises(KerasMissing, match="make keras"):
        choose_interpreter(None, tmp_path, has_tensorflow=False)


def test_child_gets_its_options_as_json_and_shares_stdout(child: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The child's only argument is the options as JSON, and its output appears on this process's stdout."""
    child.write_text("import sys\nprint(sys.argv[1:])\n")
    run_in_keras("child", {"out": "å b", "epochs": 2}, THIS_INTERPRETER)
    assert capfd.readouterr().out == """['{"out": "\\\\u00e5 b", "epochs": 2}']\n"""


def test_failing_child_prints_its_own_error_and_raises(child: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The child's error message appears on stderr, and its exit status raises KerasProcessFailed."""
    child.write_text("import sys\nsys.exit('error: no images')\n")
    with pytest.raises(KerasProcessFailed, match="child failed with exit status 1"):
        run_in_keras("child", {}, THIS_INTERPRETER)
    assert capfd.readouterr().err == "error: no images\n"


def test_killed_child_is_reported_with_its_signal(child: Path) -> None:
    """The error for a child that was killed names the signal, because the child printed nothing."""
    child.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(KerasProcessFailed, match="ended by signal 9"):
        run_in_keras("child", {}, THIS_INTERPRETER)


def test_silence_stderr_discards_native_output_but_not_exceptions(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Native output to stderr is discarded inside the context; exceptions propagate, and stderr works afterwards."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    with silence_stderr():
        os.write(2, b"cudart_stub: no GPU")
    with pytest.raises(ImportError), silence_stderr():
        raise ImportError
    os.write(2, b"error: after")
    assert capfd.readouterr().err == "error: after"


def test_child_inherits_no_secret(
    child: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The child inherits the variables that it needs, but not the gateway's secrets."""
    monkeypatch.setenv("AUTH__SIGNING_KEY", "secret")
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "1")
    child.write_text("import os; print(*os.environ)")
    run_in_keras("child", {}, THIS_INTERPRETER)
    names = capfd.readouterr().out.split()
    assert "AUTH__SIGNING_KEY" not in names
    assert {"PATH", "TF_NUM_INTEROP_THREADS"} <= set(names)
