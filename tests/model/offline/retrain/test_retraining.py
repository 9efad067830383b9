"""Retraining of a small network; see the fixture for the run."""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZipFile

import keras
import pytest
from msgspec.structs import asdict

from model.errors import DatasetError
from model.offline.retrain import RetrainOptions
from model.offline.retrain.run import retrain
from model.offline.retrain.start import read_start
from tests.model.offline.conftest import ignores_array_copies
from tests.model.offline.retrain.conftest import Retrained
from tests.model.offline.train.toy_run import COUNTS, read_json, write_data

pytestmark = [pytest.mark.keras, ignores_array_copies]


def test_killed_run_continues_after_its_last_trial(retrained: Retrained) -> None:
    """After SIGKILL, neither the features nor a finished trial are computed again, and the fit follows."""
    assert [line.partition(":")[0] for line in retrained.killed[-1:]] == ["Trial 0000"]
    assert any(line.startswith("Features of the training images") for line in retrained.killed)
    assert not any(line.startswith(("Features", "Trial")) for line in retrained.last)
    assert any(line.startswith("Epoch 1 of 1") for line in retrained.last)


def test_card_has_the_trials_and_the_comparison(retrained: Retrained) -> None:
    """The model card lists every trial with its hyper-parameters, and compares both models on the test images."""
    card = (retrained.out / "MODEL_CARD.md").read_text()
    section = card[card.index("## Retraining") :]
    assert "made 1 trial;" in section
    assert [line[:12] for line in section.splitlines() if line.startswith("| 0000 |")] == ["| 0000 | 2 |"]
    assert f"On the {COUNTS['test']} test images" in section


def test_card_names_the_layers_that_were_trained(retrained: Retrained) -> None:
    """The card names the first layer that the best trial fine-tuned; the comparison covers all test images."""
    metrics = read_json(retrained.out / "metrics.json")
    first = metrics["search"]["trials"][0]["choice"]["trained_from"]
    assert f"The layers from `{first}` on were fine-tuned." in (retrained.out / "MODEL_CARD.md").read_text()
    assert metrics["comparison"]["images"] == metrics["test"]["n"] == COUNTS["test"]


def test_layers_below_the_trained_ones_keep_their_weights(retrained: Retrained, start: Path) -> None:
    """The layers before the last block keep the weights of the start model."""
    before, after = (keras.models.load_model(path, compile=False) for path in (start, retrained.out / "model.keras"))
    same = [
        all((old == new).all() for old, new in zip(first.get_weights(), second.get_weights(), strict=True))
        for first, second in zip(before.layers, after.layers, strict=True)
    ]
    names = [layer.name for layer in before.layers]
    assert all(same[: names.index("block7a_expand_conv")])


def test_finished_run_holds_the_result_alone(retrained: Retrained) -> None:
    """A finished run keeps neither the files for resuming nor the images, and says once how to import the model."""
    assert not {path.name for path in retrained.out.iterdir()} & {"features", "trials", "fit", "input"}
    assert len([line for line in retrained.last if line.startswith("Import ")]) == 1


def test_archive_holds_code_data_and_start_model_alone(retrained: Retrained) -> None:
    """The archive contains only the model package's code, the data, the start model and the options."""
    with ZipFile(retrained.archive) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "__main__.py", "retrain.json", "model", "data", "start",
    }  # fmt: skip
    assert all(name.endswith(".py") for name in names if name.startswith("model/"))


def test_other_images_do_not_resume_a_run(start: Path, tmp_path: Path) -> None:
    """A run is not resumed with other images, because its features would not match their labels."""
    data = write_data(tmp_path / "data")
    options = RetrainOptions(str(data), str(start), str(tmp_path), validation_fraction=0.25)
    (tmp_path / "options.json").write_text(json.dumps({**asdict(options), "images": "0" * 64}))
    with pytest.raises(DatasetError, match="other options or images"):
        retrain(options)


def test_data_without_test_images_is_rejected(tmp_path: Path, start: Path) -> None:
    """Data without test images raise an error, because the models could not be compared."""
    (tmp_path / "data" / "train" / "field").mkdir(parents=True)
    (tmp_path / "data" / "train" / "field" / "0.png").touch()
    with pytest.raises(DatasetError, match="has no folder test/"):
        retrain(RetrainOptions(str(tmp_path / "data"), str(start), str(tmp_path / "out")))


def test_data_must_have_the_classes_of_the_start_model(start: Path) -> None:
    """The error names the classes that only the data or only the model has."""
    with pytest.raises(DatasetError, match="differ: road, rock"):
        read_start(start, ["field", "lake", "rock", "sand", "scrub"])
