"""Rules for tests: no private attributes, no half-built objects, one way to skip, nothing left changed."""

from __future__ import annotations

import ast
import logging
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.linux.process_state import list_changes, read_process_state
from tests.support.logs import restored_logging
from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S

TESTS = ROOT / "tests"
SKIPS = {"skip", "skipif", "importorskip", "xfail"}
# The only module that may skip a test: with CI=true it fails the test instead.
REQUIREMENTS = TESTS / "support" / "requirements.py"
# The only module that may configure logging as in production: it prevents loggers from keeping the configuration.
LOGS = TESTS / "support" / "logs.py"


def find_private_attributes(tree: ast.Module) -> Iterator[str]:
    """Private attributes of anything but `self` and `cls`, and objects that `__new__` makes without `__init__`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        is_own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
        is_private = node.attr.startswith("_") and not node.attr.endswith("__")
        if (is_private and not is_own) or node.attr == "__new__":
            yield f"line {node.lineno}: {ast.unparse(node)}"


def find_skips(tree: ast.Module) -> Iterator[str]:
    """Uses of pytest's own ways to skip a test or to expect its failure."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in SKIPS and ast.unparse(node).startswith("pytest."):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def find_imports_of_logging(tree: ast.Module) -> Iterator[str]:
    """Imports of the function that configures the logging of the whole process."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "configure_logging" for alias in node.names):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def test_what_a_test_leaves_changed_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The check around each test detects a changed environment, folder, signal handler, limit and log level."""
    before = read_process_state()
    usual_handler, usual_files = signal.getsignal(signal.SIGHUP), resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setenv("ATALAYA_LEFT", "1")
    monkeypatch.chdir(tmp_path)
    with restored_logging():
        logging.getLogger().setLevel(logging.DEBUG)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual_files[0] - 1, usual_files[1]))
        after = read_process_state()
        signal.signal(signal.SIGHUP, usual_handler)
        resource.setrlimit(resource.RLIMIT_NOFILE, usual_files)
    changes = ["environment: ATALAYA_LEFT", "logging", "resource limits", "signal handlers", "working directory"]
    assert list_changes(before, after) == changes


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_tests_use_public_interfaces_and_one_way_to_skip(path: Path) -> None:
    """Tests touch no private attributes, make no half-built objects, skip only with `missing`, and restore logging."""
    tree = ast.parse(path.read_text())
    faults = [
        *find_private_attributes(tree),
        *(() if path == REQUIREMENTS else find_skips(tree)),
        *(() if path == LOGS else find_imports_of_logging(tree)),
    ]
    assert faults == []


def test_keras_tests_are_where_make_looks_for_them() -> None:
    """All tests that need Keras are in tests/model, the only folder where `make test` looks for them."""
    marked = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__) and "mark.keras" in path.read_text()]
    assert marked
    assert [path for path in marked if not path.is_relative_to(TESTS / "model")] == []


def test_the_rules_find_faults() -> None:
    """The rules find a private attribute, a call of `__new__`, a skip, and an import of `configure_logging`."""
    tree = ast.parse("engine._pool\nself._own\nThing.__new__(Thing)\npytest.mark.skipif(True)\npytest.skip('x')")
    assert list(find_private_attributes(tree)) == ["line 1: engine._pool", "line 3: Thing.__new__"]
    assert list(find_skips(tree)) == ["line 4: pytest.mark.skipif", "line 5: pytest.skip"]
    statement = "from monitoring.logs.configuration import configure_logging"
    assert list(find_imports_of_logging(ast.parse(statement))) == [f"line 1: {statement}"]


def test_benchmarks_need_no_development_tools() -> None:
    """`make bench` needs no development requirements: no benchmark imports pytest, directly or indirectly."""
    # The services of peer projects run in their own environments.
    files = [path for path in (ROOT / "bench").rglob("*.py") if "services" not in path.parts]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    program = f"import sys, {', '.join(names)}; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=PATIENCE_S).returncode == 0
