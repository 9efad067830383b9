"""What the audit log says of moves of aliases that fail."""

from __future__ import annotations

import json

import pytest

from api.cli import run
from api.commands.models.aliases import auditing_move
from model.registry.errors import AliasMoved
from model.registry.moves import Change


def fail_to_move() -> None:
    with auditing_move("promoted", "land", "production", "better") as audit:
        audit(Change("1.0", "1.1"))
        raise AliasMoved("production", "1.2", "1.0")


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_move_that_fails_after_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    """The entry of a move that then fails is followed by one that says so."""
    with pytest.raises(AliasMoved):
        fail_to_move()
    capsys.readouterr()
    assert run(["audit", "--json"]) == 0
    events = [event for event in json.loads(capsys.readouterr().out) if event["target"] == "model:land"]
    assert {event["outcome"]: event["detail"] for event in events} == {
        "promoted": {"alias": "production", "from": "1.0", "to": "1.1", "why": "better"},
        "refused": {"alias": "production", "why": "better", "code": "alias_moved"},
    }
