"""The guides agree with the code: links, paths, routes and error codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.app import create_app
from api.http.errors import STATUS_BY_ERROR
from api.settings import Settings
from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key
from tests.support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("samples/*.md")])
MODULE = re.compile(r"`python -m ((?:bench|tests)[\w.]+)`")
PATH = re.compile(r"`((?:api|auth|bench|deploy|grafana|model|monitoring|storage|tests)/[\w./-]+)`")


def read_prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def find_module(name: str) -> str:
    """The file that `python -m` runs for a module or a package."""
    path = name.replace(".", "/")
    return f"{path}/__main__.py" if (ROOT / path).is_dir() else f"{path}.py"


def find_anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names an existing file, and an anchor an existing heading."""
    for link in re.findall(r"\]\(([^)]+)\)", read_prose(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in find_anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page: Path) -> None:
    """A path or module of the source code that a page mentions exists."""
    modules = [find_module(module) for module in MODULE.findall(read_prose(page))]
    paths = [*PATH.findall(read_prose(page)), *modules]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_error_code_is_documented() -> None:
    """The table of errors in docs/api.md has the code of each error that a request can cause, with its status."""
    rows = re.findall(r"^\| (\d{3}) \| ([^|]+) \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    documented = {(int(status), code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    expected = {(int(status), str(vars(kind)["code"])) for kind, status in STATUS_BY_ERROR.items()}
    assert sorted(expected - documented) == []


def test_every_route_is_documented() -> None:
    """The table of routes in docs/api.md mentions each route, or the collection that it belongs to."""
    settings = Settings(auth={"signing_key": generate_signing_key("ES256")}, ledger={"signing_key": new_private_key()})
    documented = re.findall(r"(/[\w.{}/-]+)", (ROOT / "docs/api.md").read_text())
    paths = create_app(settings).openapi()["paths"]
    assert sorted(path for path in paths if not path.startswith(tuple(documented))) == []
