"""Read the commands in the guides: in code blocks with their output, and between back quotes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Step:
    """A command as it is typed, and the output that the page shows below it."""

    command: str
    output: str


def read_blocks(page: Path, section: str = "") -> Iterator[tuple[str, str]]:
    """Yield language and text of each code block of a page, or of the section with that heading."""
    text = page.read_text()
    if section:
        _, heading, text = text.partition(f"\n{section}\n")
        if not heading:
            raise LookupError(f"{page.name} has no heading {section!r}")
        level = len(section) - len(section.lstrip("#"))
        text = re.split(rf"^#{{1,{level}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    yield from _BLOCK.findall(text)


def read_steps(page: Path, section: str = "") -> list[Step]:
    """Return the commands after each `$ ` of a page's console blocks; a backslash at the end of a line continues it."""
    steps = []
    for language, text in read_blocks(page, section):
        if language in {"console", "text"}:
            parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
            for part in parts:
                command = re.match(r"(?:.*\\\n)*.*\n", part)
                assert command
                steps.append(Step(command[0].rstrip("\n"), part[command.end() :]))
    return steps


def read_inline(page: Path) -> list[str]:
    """Return the texts between back quotes outside of code blocks."""
    return _INLINE.findall(_BLOCK.sub("", page.read_text()))


def read_command_lines(page: Path) -> Iterator[str]:
    """Yield every command of a page, in console blocks, in sh blocks and between back quotes."""
    yield from read_typed_lines(page)
    yield from read_inline(page)


def read_typed_lines(page: Path) -> Iterator[str]:
    """Yield the commands in console blocks and in sh blocks."""
    yield from (step.command for step in read_steps(page))
    for language, text in read_blocks(page):
        if language == "sh":
            yield from text.replace("\\\n", "").splitlines()
