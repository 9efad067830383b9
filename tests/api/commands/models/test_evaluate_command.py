"""`atalaya evaluate`, with an ONNX model whose probabilities are the softmax of an image's mean red, green and blue."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api.cli import run
from model.imaging.input_spec import InputSpec
from model.offline.changes import ALL_CHANGES, SIX_CHANGES
from tests.model.backends.tiny_onnx import write_tiny_artefact

# The third image is green but labelled red, so the model misclassifies it. The gate rejects the last one as too dark.
COLOURS = {
    "red": [(103, 100, 100), (102, 100, 100), (100, 101, 100)],
    "green": [(100, 104, 100)],
    "blue": [(10, 10, 13)],
}
CONFIDENCE = {
    "calibration": {"temperature": 2.0},
    "abstention": {
        "not_an_aerial_image": {"weights": [1.0, 1.0, 1.0], "bias": -100.0},
        "low_confidence": {"min_confidence": 0.5},
    },
    "prediction_sets": {"scores": [0.5, 0.6, 0.7, 0.75]},
}

Evaluate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set with a test/ folder of five uniform images in three classes."""
    for name, colours in COLOURS.items():
        folder = tmp_path / "data" / "test" / name
        folder.mkdir(parents=True)
        for number, colour in enumerate(colours):
            Image.new("RGB", (24, 24), colour).save(folder / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model without confidence members in its manifest."""
    folder = tmp_path / "plain"
    folder.mkdir()
    return write_tiny_artefact(folder, InputSpec(24, 24))


@pytest.fixture
def full_model(model: Path, tmp_path: Path) -> Path:
    """The same model with a temperature, abstention rules and conformal scores."""
    folder = model.rename(tmp_path / "full")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **CONFIDENCE}))
    return folder


@pytest.fixture
def evaluate(data: Path, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Run `atalaya evaluate` on the data set; returns its exit status, standard output and standard error."""

    def run_evaluate(model: Path, *arguments: str, folder: Path = data) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(["evaluate", "--data", str(folder), "--model", str(model), *arguments])
        return status, *capsys.readouterr()

    return run_evaluate


def predict(temperature: float) -> tuple[Any, Any]:
    """The probabilities of the five images, and their labels."""
    logits = np.array([colour for colours in COLOURS.values() for colour in colours]) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True), np.array([0, 0, 0, 1, 2])


@pytest.mark.parametrize("subfolder", ["", "test"], ids=["data set", "test folder"])
def test_json_has_the_results_of_served_and_raw_probabilities(
    evaluate: Evaluate, full_model: Path, data: Path, subfolder: str
) -> None:
    """--data takes a data set or its test folder; `ece` and `loss` are those of the calibrated probabilities."""
    status, out, _ = evaluate(full_model, "--json", folder=data / subfolder)
    results = json.loads(out)
    assert status == 0
    assert (results["model"], results["n"], results["accuracy"]) == ("tiny-v1.0", 5, 0.8)
    assert (results["temperature"], results["prediction_sets"]) == (2.0, None)
    for suffix, temperature in (("", 2.0), ("_raw", 1.0)):
        probabilities, labels = predict(temperature)
        correct = probabilities.argmax(axis=1) == labels
        loss = -np.log(probabilities[np.arange(5), labels]).mean()
        assert results[f"loss{suffix}"] == pytest.approx(loss, rel=1e-4)
        assert results[f"ece{suffix}"] == pytest.approx(np.abs(probabilities.max(axis=1) - correct).mean(), rel=1e-4)
    assert results["macro_f1"] == pytest.approx((4 / 5 + 2 / 3 + 1) / 3)
    assert results["per_class"]["red"]["recall"] == pytest.approx(2 / 3)
    assert results["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_model_without_a_temperature_has_equal_calibrations(evaluate: Evaluate, model: Path) -> None:
    """Without a temperature and rules, calibrated and raw results are equal and abstention is not reported."""
    results = json.loads(evaluate(model, "--json")[1])
    assert (results["loss"], results["ece"], results["temperature"]) == (results["loss_raw"], results["ece_raw"], 1.0)
    assert results["abstention"] is None
    assert "abstained" not in evaluate(model)[1]


def test_abstentions_are_reported_by_reason(evaluate: Evaluate, full_model: Path) -> None:
    """Abstentions are counted by reason: the dark image is not aerial, the misclassified one has low confidence."""
    results = json.loads(evaluate(full_model, "--json")[1])
    assert results["abstention"] == {
        "share": pytest.approx(0.4),
        "reasons": {"not_an_aerial_image": 0.2, "low_confidence": 0.2},
        "selective_accuracy": 1.0,
    }


def test_coverage_of_prediction_sets_is_reported(evaluate: Evaluate, full_model: Path) -> None:
    """The report has the coverage and size of sets that hold the labels with a probability of at least 0.3."""
    sets = json.loads(evaluate(full_model, "--coverage", "0.6", "--json")[1])["prediction_sets"]
    probabilities, labels = predict(2.0)
    chosen = probabilities >= 1 - 0.7
    assert sets == {
        "wanted": 0.6,
        "coverage": pytest.approx(chosen[np.arange(5), labels].mean()),
        "mean_size": pytest.approx(chosen.sum(axis=1).mean()),
    }


def test_coverage_needs_conformal_scores(evaluate: Evaluate, model: Path) -> None:
    """`--coverage` fails for a model without conformal scores, with an error that names the cause."""
    status, out, error = evaluate(model, "--coverage", "0.9")
    assert (status, out) == (1, "")
    assert error.startswith("error: tiny-v1.0 has no conformal scores")


def test_robustness_has_every_change_and_the_mean_of_six(evaluate: Evaluate, full_model: Path) -> None:
    """`--robustness` reports the results of each change and the mean of six of them."""
    document = json.loads(evaluate(full_model, "--robustness", "--coverage", "0.6", "--json")[1])
    changes = document["robustness"]["changes"]
    assert list(changes) == list(ALL_CHANGES)
    # A grey image has the same probability, 1/3, for each class, so the first class, "red", is predicted.
    assert changes["grey"]["accuracy"] == pytest.approx(0.6)
    assert changes["grey"]["confidence"] == pytest.approx(1 / 3)
    assert changes["grey"]["abstention"]["reasons"] == {"not_an_aerial_image": 0.2, "low_confidence": 0.8}
    assert changes["ground resolution x2"]["confidence"] == pytest.approx(document["confidence"])
    for name in ("accuracy", "ece", "ece_raw", "confidence"):
        mean = np.mean([changes[change][name] for change in SIX_CHANGES])
        assert document["robustness"]["mean_of_six"][name] == pytest.approx(mean)


def test_tables_show_what_the_json_has(evaluate: Evaluate, full_model: Path) -> None:
    """Without --json, tables show both calibrations, the abstentions, the sets and the changes with their mean."""
    document = json.loads(evaluate(full_model, "--robustness", "--coverage", "0.6", "--json")[1])
    status, out, _ = evaluate(full_model, "--robustness", "--coverage", "0.6")
    rows = {line.strip().split("  ")[0]: line for line in out.splitlines() if line.strip()}
    assert status == 0
    assert rows["tiny-v1.0"].split() == ["tiny-v1.0", "5", "0.8000", f"{document['macro_f1']:.4f}"]
    assert rows["raw"].split()[-2:] == [f"{document['loss_raw']:.4f}", f"{document['ece_raw']:.4f}"]
    assert rows["calibrated, temperature 2.000"].split()[-1] == f"{document['ece']:.4f}"
    assert rows["predicted"].split() == ["predicted", "3", "0.6000", "1.0000"]
    assert rows["abstained: not_an_aerial_image"].split()[2:] == ["1", "0.2000"]
    assert rows["0.6"].split()[1] == f"{document['prediction_sets']['coverage']:.4f}"
    assert list(rows)[-9:] == ["clean", *SIX_CHANGES, "mean of the six changes", "ground resolution x2"]
    assert f"{document['robustness']['mean_of_six']['accuracy']:.4f}" in rows["mean of the six changes"]


def test_plot_is_drawn_by_the_keras_environment(
    evaluate: Evaluate, full_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--plot` passes the curves of both calibrations and the accuracies to the interpreter of MODEL__KERAS_PYTHON."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s" "$3" > {tmp_path}/options.json\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("MODEL__KERAS_PYTHON", str(python))
    assert evaluate(full_model, "--robustness", "--plot", str(tmp_path / "plot.png"), "--json")[0] == 0
    options = json.loads((tmp_path / "options.json").read_text())
    assert options["path"] == str(tmp_path / "plot.png")
    assert [(len(curve["points"]), sum(curve["counts"])) for curve in options["curves"]] == [(5, 5), (5, 5)]
    assert list(options["accuracies"]) == ["clean", *ALL_CHANGES]


@pytest.mark.parametrize(
    "arguments",
    [("--plot", "plot.svg"), ("--plot", "nowhere/plot.png"), ("--coverage", "1"), ("--coverage", "nan")],
    ids=["not a PNG", "no folder", "coverage of 1", "no number"],
)
def test_wrong_options_are_usage_errors(evaluate: Evaluate, model: Path, arguments: tuple[str, str]) -> None:
    """An invalid option is a usage error with one line that names it."""
    status, out, error = evaluate(model, *arguments)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert arguments[0] in error


def test_data_without_images_fails(evaluate: Evaluate, model: Path, tmp_path: Path) -> None:
    """A directory without classes fails with one line that describes what was expected; a missing one is named."""
    (tmp_path / "empty").mkdir()
    for name, problem in (("empty", "Expected test/<class>/"), ("nowhere", "nowhere is not a folder.")):
        status, _, error = evaluate(model, folder=tmp_path / name)
        assert (status, error.count("\n")) == (1, 1)
        assert problem in error


def test_gate_is_reported_by_group(evaluate: Evaluate, full_model: Path, tmp_path: Path) -> None:
    """`--gate` counts the images of each group that the gate rejects: here the dark test image and all photographs."""
    for folder, colours in (("scenes/town", COLOURS["red"]), *((f"photos/kind{n}", COLOURS["blue"]) for n in range(9))):
        (tmp_path / folder).mkdir(parents=True)
        for number, colour in enumerate(colours):
            Image.new("RGB", (24, 24), colour).save(tmp_path / folder / f"{number}.png")
    options = ("--gate", "--photos", str(tmp_path / "photos"), "--scenes", str(tmp_path / "scenes"))
    status, out, _ = evaluate(full_model, *options, "--json")
    report = json.loads(out)
    groups = {group["name"]: group for group in report["groups"]}
    assert (status, report["model"]) == (0, "tiny-v1.0")
    assert groups["test images"] == {
        "name": "test images",
        "is_aerial": True,
        "images": 5,
        "refused": 1,
        "share": 0.2,
    }
    assert groups["other scenes, town"]["refused"] == 0
    assert 0 < groups["photographs"]["images"] == groups["photographs"]["refused"] < 9
    assert groups["documents"]["share"] < 1
    assert report["near_misses"][0]["accepted"] == report["near_misses"][0]["images"]
    table = evaluate(full_model, *options)[1]
    assert "photographs" in table
    assert "near misses" in table


def test_gate_options_need_the_gate(evaluate: Evaluate, model: Path, tmp_path: Path) -> None:
    """`--photos` without `--gate` is a usage error, and `--gate` fails for a model that has no gate."""
    status, _, err = evaluate(model, "--photos", str(tmp_path))
    assert (status, "--photos and --scenes need --gate" in err) == (2, True)
    status, _, err = evaluate(model, "--gate")
    assert (status, "tiny-v1.0 has no gate" in err) == (1, True)
