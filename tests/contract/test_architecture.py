"""The rules of the code's structure that import-linter does not check (docs/adr/0001-packages.md)."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

from tests.support.paths import ROOT

PACKAGES = ("api", "auth", "model", "monitoring", "storage")
MAX_FOLDER_ENTRIES = 17
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
# Metaphors for which the field has terms: Reservation, slot, overload, LimitResult, charge, linger, response, results …
METAPHOR = re.compile(
    "rooms?|places?|crowd(s|ed)?|floods?|lonely|company|dress|standings?|till|settle|owed?|stray|outlast(ed)?|told|hear(d)?"
    "|asked|answer(s|ed)?|figures|guesses|greed(y|iest)|desk|house"
)


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that belongs to the project."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(Path(name) for name in listed.split("\0") if name and (ROOT / name).exists())


def python_files() -> Iterator[Path]:
    return (path for path in tracked() if path.suffix == ".py")


def test_no_import_cycles() -> None:
    """Modules do not import each other in cycles, not even for type checking."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    sorter = TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    assert "api.app" in tuple(sorter.static_order())  # raises CycleError, which names the modules of a cycle


def test_migrations_use_no_code_of_the_project() -> None:
    """A migration imports only libraries: otherwise a change of the project's code would change what it does."""
    imported = {
        f"{path}: {name}"
        for path in python_files()
        if path.parts[1:3] == ("migrations", "versions")
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
        if name.partition(".")[0] in PACKAGES
    }
    assert imported == set()


def test_folders_are_small() -> None:
    """A folder below the root has at most 17 entries: a larger one needs sub-packages.

    docs and docs/adr are exempt: pages for users are directly in docs, and decision records accumulate.
    """
    entries: dict[Path, set[str]] = {}
    for path in tracked():
        for parent, child in zip(path.parents, (path, *path.parents), strict=False):
            entries.setdefault(parent, set()).add(child.name)
    del entries[Path()], entries[Path("docs")], entries[Path("docs/adr")]
    assert {str(folder): len(names) for folder, names in entries.items() if len(names) > MAX_FOLDER_ENTRIES} == {}


def test_files_are_short() -> None:
    """A Python file has at most 300 lines."""
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in python_files()}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    """A function has at most 60 lines."""
    long = {}
    for path in python_files():
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{path}: {node.name}"] = lines
    assert long == {}


@pytest.mark.parametrize("identifier", ["check_room", "RoomReservation", "isCrowded"])
def test_metaphors_are_recognised(identifier: str) -> None:
    """A metaphor is found between underscores and capital letters of an identifier."""
    assert has_metaphor(identifier)


def test_identifiers_use_the_field_s_terms() -> None:
    """No identifier contains a metaphor for a mechanism that has a standard name."""
    found: dict[str, str] = {}
    for path in python_files():
        source = io.StringIO((ROOT / path).read_text())
        for token in tokenize.generate_tokens(source.readline):
            if token.type == tokenize.NAME and has_metaphor(token.string):
                found[token.string] = f"{path}:{token.start[0]}"
    assert found == {}


def has_metaphor(identifier: str) -> bool:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)
    return any(METAPHOR.fullmatch(word.lower()) for word in words)


def test_records_are_structs() -> None:
    """A dataclass hides a field from its text or its comparison; every other record is a Struct (docs/adr/0074)."""
    dataclasses = {
        f"{path}: {node.name}"
        for path, node in product_classes()
        if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
        and not re.search(r"field\(.*(repr|compare)=False", ast.unparse(node))
    }
    assert dataclasses == set()


def test_fields_of_structs_are_from_msgspec() -> None:
    """A Struct would take a field of `dataclasses` for the default value."""
    origins = {
        f"{path}: {node.name}.{ast.unparse(each.target)}": origin_of(each.value.func, path)
        for path, node in product_classes()
        if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.value, ast.Call)
    }
    assert "msgspec.field" in origins.values()
    assert {name for name, origin in origins.items() if origin == "dataclasses.field"} == set()


def product_classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    for path in python_files():
        if path.parts[0] in PACKAGES:
            yield from ((path, node) for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef))


def origin_of(function: ast.expr, path: Path) -> str:
    """Return the name of a called function, with its module if it was imported from there."""
    name = ast.unparse(function)
    for node in parse(path).body:
        if isinstance(node, ast.ImportFrom) and any((each.asname or each.name) == name for each in node.names):
            return f"{node.module}.{name}"
    return name


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())
