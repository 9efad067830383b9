"""The threat model names, for each threat, the tests that cover it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

from tests.support.paths import ROOT

SECURITY = ROOT / "tests" / "security"
THREATS = 30


def read_threat_model() -> dict[int, list[Path]]:
    """Return the test files by the number of their threat, in the order of docs/security/threat-model.md."""
    page = (ROOT / "docs" / "security" / "threat-model.md").read_text()
    sections = re.split(r"^### T(\d+): ", page, flags=re.MULTILINE)[1:]
    return {
        int(number): [ROOT / path for path in re.findall(r"`(tests/[\w/]+\.py)`", section)]
        for number, section in zip(sections[::2], sections[1::2], strict=True)
    }


def read_tests(path: Path) -> list[str]:
    """Return the names of the tests in a file."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.parse(path.read_text()).body
    return [node.name for node in nodes if isinstance(node, functions) and node.name.startswith("test_")]


def read_declared_threats(path: Path) -> set[int]:
    """Return the threats that a test module's docstring names, for example "T1, T2 and T9 to T11"."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    ranges = [range(int(first), int(last) + 1) for first, last in re.findall(r"\bT(\d+) to T(\d+)", docstring)]
    return {int(number) for number in re.findall(r"\bT(\d+)\b", docstring)}.union(*ranges)


def test_every_threat_has_tests() -> None:
    """Threats are in order, the first thirty without gaps, and each names test files that exist and contain tests."""
    threats = read_threat_model()
    assert list(threats)[:THREATS] == list(range(1, THREATS + 1))
    assert list(threats) == sorted(threats)
    for number, paths in threats.items():
        assert paths, number
        assert all(read_tests(path) for path in paths), number


def test_every_security_test_module_declares_its_threats() -> None:
    """The docstring of each security test module names exactly the threats for which the threat model names it."""
    expected = defaultdict[Path, set[int]](set)
    for number, paths in read_threat_model().items():
        for path in paths:
            expected[path].add(number)
    modules = [path for path in SECURITY.rglob("test_*.py") if path != SECURITY / "test_threat_model.py"]
    assert {path: read_declared_threats(path) for path in modules} == {path: expected[path] for path in modules}
    assert not expected.keys() - set(modules)
