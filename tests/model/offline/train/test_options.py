from __future__ import annotations

import json

import pytest
from msgspec import to_builtins

from api.cli import run
from model.offline.train import Stage, TrainOptions, parse_options


def test_options_survive_json() -> None:
    """Options are unchanged after being passed as JSON."""
    options = TrainOptions("data", "imagenet", "out", stages=(Stage(96, 1), Stage(128, 2)), without=("light",))
    assert parse_options(json.loads(json.dumps(to_builtins(options)))) == options


def test_epochs_belong_to_their_stages() -> None:
    """Epochs are assigned to the stages in order, and an epoch after the last stage is an error."""
    options = TrainOptions("data", "imagenet", "out", stages=(Stage(96, 1), Stage(128, 2)))
    assert options.epochs == 3
    assert [options.find_stage(epoch).size for epoch in range(3)] == [96, 128, 128]
    with pytest.raises(ValueError, match="only 3 epochs"):
        options.find_stage(3)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--stage", "192", "'192' is not PIXELS:EPOCHS"),
        ("--stage", "192:0", "'192:0' is not PIXELS:EPOCHS"),
        ("--without", "shade", "'shade' is not one of light, colour"),
    ],
)
def test_wrong_stages_and_parts_are_usage_errors(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An invalid stage or an unknown part ends the command with status 2 and a usage error."""
    assert run(["train", "--data", "d", "--init", "imagenet", "--out", "o", option, value]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
