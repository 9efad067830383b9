"""The Spanish pages have the commands, settings, numbers and sections of the English ones."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.contract.documents.markdown import read_inline
from tests.support.paths import ROOT

PAIRS = {ROOT / "README.es.md": ROOT / "README.md"} | {
    page: ROOT / "docs" / page.name for page in sorted((ROOT / "docs" / "es").glob("*.md"))
}
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def read_blocks(page: Path) -> list[str]:
    """The code blocks, including those in lists, without diagrams, whose labels are translated."""
    return [text for language, text in BLOCK.findall(page.read_text()) if language != "mermaid"]


def read_prose(page: Path) -> str:
    """The text without code blocks, code between back quotes, and addresses of links."""
    return re.sub(r"`[^`\n]+`|\]\([^)]*\)", "", BLOCK.sub("", page.read_text()))


def count_numbers(page: Path) -> Counter[str]:
    return Counter(re.findall(r"\d+(?:\.\d+)*", re.sub(r"(\d),(\d)", r"\1.\2", read_prose(page))))


def list_headings(page: Path) -> list[int]:
    """The levels of the headings."""
    return [len(level) for level in re.findall(r"^(#+) ", BLOCK.sub("", page.read_text()), re.MULTILINE)]


both = pytest.mark.parametrize(
    ("translated", "original"), PAIRS.items(), ids=[str(page.relative_to(ROOT)) for page in PAIRS]
)


def test_the_first_pages_are_translated() -> None:
    """README, installation, use and maintenance exist in Spanish."""
    assert {page.name for page in PAIRS} == {"README.es.md", "install.md", "use.md", "maintain.md"}


@both
def test_commands_and_output_are_those_of_the_original(translated: Path, original: Path) -> None:
    """A translated page has the code blocks of the original in the same order, so one test covers both."""
    assert read_blocks(translated) == read_blocks(original)


@both
def test_names_are_those_of_the_original(translated: Path, original: Path) -> None:
    """A translated page mentions the same commands, settings, fields and files."""
    assert set(read_inline(translated)) == set(read_inline(original))


@both
def test_sections_and_numbers_are_those_of_the_original(translated: Path, original: Path) -> None:
    """A translated page has the sections of the original, and its numbers with a decimal comma."""
    assert list_headings(translated) == list_headings(original)
    assert count_numbers(translated) == count_numbers(original)


@both
def test_pages_lead_to_each_other(translated: Path, original: Path) -> None:
    """Below its title, each page has a link to the other language."""
    for page, other, language in ((original, translated, "Español"), (translated, original, "English")):
        (link,) = re.findall(rf"^\[{language}\]\((.+)\)$", page.read_text(), re.MULTILINE)
        assert (page.parent / link).resolve() == other
