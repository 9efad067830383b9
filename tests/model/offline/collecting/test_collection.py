"""Data sets of labelled images: duplicates, splits and contradicting labels."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest
from PIL import Image

from model.errors import DatasetError
from model.offline.collecting.collection import Collector, Dataset, LabelledImage
from model.offline.collecting.manifest import read_splits, write_manifest
from model.offline.collecting.similarity import compute_difference_hash, group_similar
from model.offline.collecting.splits import Split, choose_split
from model.offline.dataset import find_evaluation_folder, list_images, split_training_data
from tests.support.paths import SAMPLES

SCENES = sorted(SAMPLES.glob("*.jpg"))[:4]


def encode(image: Image.Image, name: str = "JPEG", **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def draw(seed: int) -> bytes:
    """Return a PNG of coarse noise. Images of different seeds are not similar."""
    noise = Image.frombytes("L", (9, 8), hashlib.shake_128(b"%d" % seed).digest(72))
    return encode(noise.resize((90, 80), Image.Resampling.NEAREST), "PNG")


def collect(folder: Path, *images: tuple[str, bytes], known: Mapping[str, Split] = MappingProxyType({})) -> Dataset:
    """Collect images with their labels, the oldest first."""
    collector = Collector(folder, known)
    for number, (label, content) in enumerate(images):
        sha256 = hashlib.sha256(content).hexdigest()
        collector.add(LabelledImage(f"prediction-{number}", "stub-v1.0", label, sha256, content))
    return collector.finish(("beach", "forest", "river"))


def test_images_are_private(tmp_path: Path) -> None:
    """A collector creates its folder with access only for its owner, so no other user can read an image below it."""
    collect(tmp_path / "data", ("forest", draw(1)))
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_near_duplicates_are_found() -> None:
    """The same scene at another quality, size or format is similar; other scenes are not."""
    images = [Image.open(path) for path in SCENES]
    copies = [
        *(encode(image, quality=30) for image in images),
        *(encode(image.resize((150, 150)), "PNG") for image in images),
        *(encode(image.convert("L"), "WEBP") for image in images),
    ]
    hashes = [compute_difference_hash(data) for data in [*(path.read_bytes() for path in SCENES), *copies]]
    assert group_similar(hashes) == list(range(len(SCENES))) * 4


def test_a_third_image_connects_two() -> None:
    """Two images that are both similar to a third one form one group with it, named after the oldest."""
    assert group_similar([0b0, 0b1111_1111, 2**63 - 1, 0b1111]) == [0, 0, 2, 0]
    assert group_similar([]) == []


def test_many_equal_hashes_are_one_group() -> None:
    """Images of one colour have equal hashes, and 100,000 of them form one group without pairwise comparisons."""
    assert group_similar([2**63 - 1, *[0] * 100_000, 1]) == [0, *[1] * 100_001]


def test_splits_have_their_shares() -> None:
    """About 80 % of the images are assigned to training, and 10 % each to validation and test."""
    counts = Counter(choose_split(hashlib.sha256(b"%d" % number).hexdigest()) for number in range(4000))
    assert 3100 < counts[Split.TRAIN] < 3300
    assert all(340 < counts[split] < 460 for split in (Split.VALIDATION, Split.TEST))


def test_images_keep_their_split(tmp_path: Path) -> None:
    """Adding images does not change the split of existing ones."""
    images = [("forest", draw(seed)) for seed in range(30)]
    few, many = collect(tmp_path / "few", *images[:10]), collect(tmp_path / "many", *images)
    splits = {image.sha256: image.split for image in many.images}
    assert all(splits[image.sha256] is image.split for image in few.images)
    assert set(splits.values()) == set(Split)


def test_similar_images_share_a_split(tmp_path: Path) -> None:
    """Near duplicates share the split of the oldest one, so that no test image was seen in training."""
    scene = Image.open(SCENES[0])
    copies = [("forest", encode(scene, quality=quality)) for quality in range(40, 60)]
    dataset = collect(tmp_path / "data", *copies)
    assert len(dataset.images) == len(copies)
    assert {image.split for image in dataset.images} == {choose_split(dataset.images[0].sha256)}
    assert {image.group for image in dataset.images} == {dataset.images[0].sha256}


@pytest.mark.parametrize(
    ("known", "expected"),
    [((Split.TEST,), Split.TEST), ((Split.TEST, Split.VALIDATION, Split.TRAIN), Split.TRAIN)],
)
def test_known_images_choose_the_split(tmp_path: Path, known: Sequence[Split], expected: Split) -> None:
    """Near duplicates keep the split that an earlier data set gave to any of them; training takes precedence."""
    scene = Image.open(SCENES[0])
    copies = [("forest", encode(scene, quality=quality)) for quality in range(40, 44)]
    before = collect(tmp_path / "before", *copies)
    last = [image.sha256 for image in before.images][-len(known) :]
    after = collect(tmp_path / "after", *copies, known=dict(zip(last, known, strict=True)))
    assert {image.split for image in after.images} == {expected}


def test_splits_of_earlier_manifests(tmp_path: Path) -> None:
    """Splits are read from earlier manifests, training takes precedence, and a file of another kind is an error."""
    dataset = collect(tmp_path / "data", *(("forest", draw(seed)) for seed in range(30)))
    write_manifest(tmp_path / "data", dataset, {}, datetime.now(UTC), None)
    moved = next(image for image in dataset.images if image.split is Split.TEST)
    later = tmp_path / "later.json"
    later.write_text(json.dumps({"images": [{"sha256": moved.sha256, "split": "train"}]}))
    splits = read_splits([tmp_path / "data" / "manifest.json", later])
    assert splits == {image.sha256: image.split for image in dataset.images} | {moved.sha256: Split.TRAIN}
    later.write_text("[]")
    with pytest.raises(DatasetError, match=r"later\.json is not the manifest"):
        read_splits([later])


def test_equal_images(tmp_path: Path) -> None:
    """An image that was predicted several times is stored once, with all its predictions."""
    dataset = collect(tmp_path / "data", ("forest", draw(1)), ("river", draw(2)), ("forest", draw(1)))
    assert [image.predictions for image in dataset.images] == [["prediction-0", "prediction-2"], ["prediction-1"]]
    assert dataset.duplicates == 1


def test_contradicting_labels(tmp_path: Path) -> None:
    """An image with two labels is left out, similar images with different labels are kept; both are reported."""
    scene = Image.open(SCENES[0])
    similar = encode(scene, quality=50), encode(scene, quality=60)
    images = ("forest", draw(1)), ("river", draw(1)), ("forest", similar[0]), ("beach", similar[1])
    dataset = collect(tmp_path / "data", *images)
    assert [image.label for image in dataset.images] == ["forest", "beach"]
    (conflict,), (doubtful,) = dataset.conflicts, dataset.doubtful
    assert (conflict.labels, conflict.predictions) == (["forest", "river"], ["prediction-0", "prediction-1"])
    assert (doubtful.labels, doubtful.predictions) == (["beach", "forest"], ["prediction-2", "prediction-3"])


def test_the_folder_is_what_training_and_evaluation_read(tmp_path: Path) -> None:
    """Training finds its images, the validation images and all classes; evaluation finds the test images."""
    dataset = collect(tmp_path / "data", *(("forest", draw(seed)) for seed in range(30)))
    training, validation = split_training_data(tmp_path / "data", 0.5, seed=1)
    assert training.classes == validation.classes == ("beach", "forest", "river")
    test = list_images(find_evaluation_folder(tmp_path / "data"), training.classes)
    counts = dataset.count()
    assert [len(files) for files in (training, validation, test)] == [counts["forest", split] for split in Split]
    assert not (tmp_path / "data" / ".incoming").exists()


def test_a_label_that_is_no_folder_name(tmp_path: Path) -> None:
    """A label that would lead out of the folder is rejected."""
    with pytest.raises(DatasetError, match="cannot be the name of a folder"):
        collect(tmp_path / "data", (f"..{os.sep}forest", draw(1)))


@pytest.mark.parametrize("name", ["../../../outside", "..", "", "out\0side"])
def test_a_class_that_is_no_folder_name(tmp_path: Path, name: str) -> None:
    """A class of a model that would lead out of the folder is rejected, and no folder is created for any class."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    collector = Collector(tmp_path / "a" / "b" / "data")
    with pytest.raises(DatasetError, match="cannot be the name of a folder"):
        collector.finish(("forest", name))
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "data", ".incoming"]
