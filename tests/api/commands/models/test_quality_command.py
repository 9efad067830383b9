"""`atalaya models quality`, on both databases."""

from __future__ import annotations

import json

import pytest

from api.cli import run
from api.settings import Settings
from tests.monitoring.quality.entries import append, build_label, build_prediction


@pytest.fixture
def recorded(environment: Settings) -> None:
    """Two versions of a model: 40 predictions with 25 labels, and one prediction without a label."""
    url = environment.database_url.get_secret_value()
    ids = append(url, [build_prediction()] * 40)
    labels = ["forest"] * 21 + ["river"] * 4
    append(url, [build_label(prediction, label) for prediction, label in zip(ids, labels, strict=False)])
    append(url, [build_prediction(0.9, version="2.0"), build_prediction(reason="low_confidence", version="2.0")])


def run_quality(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = run(["models", "quality", *arguments])
    output = capsys.readouterr()
    return status, output.out, output.err


@pytest.mark.usefixtures("recorded")
def test_the_table_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The table has a row for each version and each class with enough labels, in at most 80 columns."""
    status, out, err = run_quality(capsys, "tiny")
    assert (status, err) == (0, "")
    assert "84.0 (65.3-93.6)" in out
    assert "100.0 (84.5-100.0)" in out
    assert "Fewer than 20 labels in version 1.0: river 4" in out
    assert "Version 2.0 abstained 1 more time; this is left out." in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.usefixtures("recorded")
def test_json_has_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints all numbers; `--version` selects one version."""
    status, out, _ = run_quality(capsys, "tiny", "--version", "1.0", "--json")
    assert status == 0
    (version,) = json.loads(out)["versions"]
    assert (version["predictions"], version["labelled"], version["accuracy"]["value"]) == (40, 25, 0.84)
    assert [(each["label"], each["labelled"]) for each in version["classes"]] == [("forest", 21)]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("options", [["other"], ["tiny", "--version", "3.0"], ["tiny", "--since", "2026-11-24"]])
def test_nothing_recorded_is_an_error(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    """A model, version or time range without predictions is an error."""
    status, _, err = run_quality(capsys, *options)
    assert status == 1
    assert "The ledger has no predictions of" in err
