"""The rules that Prometheus evaluates, and the pages of the runbook, which have the same file names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT

RULES = ROOT / "deploy" / "prometheus" / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"
FILES = sorted(RULES.glob("*.yml"))


def read_rules(path: Path) -> list[dict[str, Any]]:
    """Return all rules of a file in order, alerting and recording ones."""
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def read_alerts() -> list[tuple[str, dict[str, Any]]]:
    """Return every alert with the name of its file. The burn rates of an objective are several alerts of one name."""
    return [(path.stem, rule) for path in FILES for rule in read_rules(path) if "alert" in rule]


def list_names() -> list[tuple[str, str]]:
    """Return the name of each file with each alert name in it, without repetitions."""
    return list(dict.fromkeys((stem, str(rule["alert"])) for stem, rule in read_alerts()))
