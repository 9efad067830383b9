"""The runbook, which has a section for each alert that says what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.contract.documents.markdown import read_command_lines
from tests.deploy.rule_files import RUNBOOKS, list_names
from tests.support.paths import ROOT

PAGES = sorted(RUNBOOKS.glob("*.md"))


def read_section(page: str, heading: str) -> str:
    text = (RUNBOOKS / f"{page}.md").read_text()
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(("page", "alert"), list_names())
def test_sections_are_complete(page: str, alert: str) -> None:
    """Each alert's section says what it means, what to run first, what to do, and when to escalate."""
    section = read_section(page, alert)
    parts = re.split(r"^\*\*(Meaning:|Check first:|Actions:|Escalate)\*\*", section, flags=re.MULTILINE)
    assert parts[1::2] == ["Meaning:", "Check first:", "Actions:", "Escalate"]
    meaning, check, actions, escalate = parts[2::2]
    assert all(part.strip() for part in (meaning, actions, escalate))
    assert re.search(r"(`|^)(docker|curl) [^`]+`", check, re.MULTILINE), "no command to paste"


def test_sections_belong_to_alerts() -> None:
    """The sections of each page are those of the alerts in the rule file of the same name, in the same order."""
    sections = [
        (page.stem, heading)
        for page in PAGES
        if page.name != "README.md"
        for heading in re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
    ]
    assert sections == list_names()


def test_the_index_lists_every_alert() -> None:
    """The index page links to the section of each alert."""
    linked = set(re.findall(r"\((\w+\.md#\w+)\)", (RUNBOOKS / "README.md").read_text()))
    assert {f"{page}.md#{alert.lower()}" for page, alert in list_names()} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_name_the_container(page: Path) -> None:
    """Each `atalaya` command runs in the `gateway` container of the Compose stack."""
    for line in read_command_lines(page):
        for found in re.finditer(r"(?<!-u )(?<![\w/.@:-])atalaya [a-z]", line):
            assert line[: found.start()].endswith("gateway "), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_say_how_commands_are_run_elsewhere(page: Path) -> None:
    """Each page links to the explanation of how to run its commands without Compose."""
    assert re.search(r"\((README\.md)?#without-compose\)", page.read_text())


def test_named_panels_exist() -> None:
    """Each panel and dashboard that the runbook names exists."""
    boards = [json.loads(path.read_text()) for path in (ROOT / "grafana/dashboards").glob("*.json")]
    titles = {board["title"] for board in boards} | {panel["title"] for board in boards for panel in board["panels"]}
    named = set()
    for page in PAGES:
        prose = re.sub(r"`[^`]*`|\*\*", "", page.read_text())
        named |= set(re.findall(r"(?<![*\w])\*([A-Z][^*\n]+)\*", prose))
    assert sorted(named - titles) == []
    assert named
