"""Helpers that the tests of `atalaya ledger` share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.commands.ledger.database import find_subject
from api.settings import Settings

Run = Callable[..., tuple[int, str, str]]
DAYS = ("2026-11-01", "2026-11-02", "2026-11-03")


def find_ana(settings: Settings) -> str:
    return find_subject(settings, "ana")


def build_facts(principal: str) -> dict[str, Any]:
    return {"principal": principal, "status": 200, "code": None, "model": None, "output": None}


def exported(ledger: Run, path: str, *options: str) -> list[dict[str, Any]]:
    status, _, err = ledger("export", path, *options)
    assert status == 0, err
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
