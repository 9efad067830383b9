"""`atalaya dataset build` on the predictions and labels of a gateway with an image store."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.commands.models.quality.dataset import new_folder
from tests.support.gateway import Gateway, make_gateway
from tests.support.paths import SAMPLES
from tests.support.polling import wait_until

SCENES = {"forest": "yellowstone_forest.jpg", "river": "yellowstone_scene.jpg"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    """A gateway that keeps the images of `ana`, some of them labelled; `cleo` has a label, but no kept image."""
    folder = tmp_path_factory.mktemp("dataset")
    key = b64encode(os.urandom(32)).decode()
    gateway = make_gateway(folder, MODEL__URL="stub://", IMAGES__URL=f"file://{folder}/images", IMAGES__KEY=key)
    gateway.add_user("cleo")
    gateway.start()
    ana, cleo = gateway.client(), gateway.client("cleo")
    label(cleo, predict(cleo, SAMPLES / SCENES["forest"]), "forest")
    ana.put("/v1/me/images", json={"keep": True}).raise_for_status()
    wait_until(lambda: is_kept(gateway, predict(ana, SAMPLES / SCENES["river"])) or list_files(gateway))
    labelled = []
    for name, scene in SCENES.items():
        labelled += [predict(ana, SAMPLES / scene) for _ in range(2)]
        label(ana, labelled[-2], "harbor")
        label(ana, labelled[-2], name)  # supersedes the first
        label(ana, labelled[-1], name)
    wait_until(lambda: all(is_kept(gateway, prediction) for prediction in labelled))
    assert gateway.stop() == 0, gateway.log()
    return gateway


def predict(client: httpx.Client, path: Path) -> str:
    response = client.post("/v1/predictions", files={"file": path.read_bytes()})
    prediction_id: str = response.raise_for_status().json()["id"]
    return prediction_id


def label(client: httpx.Client, prediction: str, name: str) -> None:
    # A busy machine may have spooled the prediction, which has no label until it is in the database.
    wait_until(lambda: client.get(f"/v1/predictions/{prediction}").is_success)
    client.post(f"/v1/predictions/{prediction}/label", json={"label": name}).raise_for_status()


def list_files(gateway: Gateway) -> list[Path]:
    return sorted((gateway.folder / "images").glob("*/[!.]*"))


def is_kept(gateway: Gateway, prediction: str) -> bool:
    return any(path.name == prediction for path in list_files(gateway))


Build = Callable[..., Any]


@pytest.fixture
def build(gateway: Gateway, tmp_path: Path) -> Build:
    """Run the command for a new folder; returns the JSON that it prints."""

    def run(*options: str, status: int = 0) -> Any:
        done = gateway.run("dataset", "build", "--out", str(tmp_path / "data"), "--json", *options)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_data_set_of_labelled_images(build: Build, tmp_path: Path) -> None:
    """The data set has each labelled image once, under its newest label, and none of users who have not allowed it."""
    summary = build()
    assert (summary["images"], summary["duplicates"], summary["conflicts"]) == (2, 2, [])
    assert summary["skipped"] == {"not_kept": 1, "unreadable": 0, "changed": 0}
    assert {name: sum(counts.values()) for name, counts in summary["classes"].items() if any(counts.values())} == {
        "forest": 1,
        "river": 1,
    }
    images = json.loads((tmp_path / "data" / "manifest.json").read_text())["images"]
    for image in images:
        assert (tmp_path / "data" / image["path"]).read_bytes() == (SAMPLES / SCENES[image["label"]]).read_bytes()
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_the_manifest_names_nobody(gateway: Gateway, build: Build, tmp_path: Path) -> None:
    """The manifest lists the ids of predictions, but neither names nor ids of users."""
    build()
    manifest = (tmp_path / "data" / "manifest.json").read_text()
    (owner,) = {path.parent.name for path in list_files(gateway)}
    assert '"predictions": [' in manifest
    assert owner not in manifest
    assert "ana" not in manifest


def test_the_audit_log_and_the_tasks_record_it(gateway: Gateway, build: Build) -> None:
    """A build writes an entry with the number of images to the audit log, and its run to the task runs."""
    build()
    events = json.loads(gateway.run("audit", "--event", "dataset", "--json").stdout)
    assert (events[0]["outcome"], events[0]["detail"]) == ("built", {"images": "2"})
    with closing(sqlite3.connect(gateway.database_path)) as database:
        (row,) = database.execute("SELECT succeeded_at, failures FROM task_runs WHERE task = 'dataset'").fetchall()
    assert row[0] is not None


def test_images_that_are_not_those_of_the_ledger(gateway: Gateway, build: Build) -> None:
    """A kept image with a changed byte is left out and counted as unreadable."""
    path = next(path for path in list_files(gateway) if is_labelled(gateway, path.name))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        assert build()["skipped"] == {"not_kept": 1, "unreadable": 1, "changed": 0}
    finally:
        path.write_bytes(content)


def test_a_prediction_that_was_changed_in_the_ledger(gateway: Gateway, build: Build) -> None:
    """An image whose prediction was changed in the ledger is left out and counted as changed."""
    prediction = next(path.name for path in list_files(gateway) if is_labelled(gateway, path.name))
    with closing(sqlite3.connect(gateway.database_path, isolation_level=None)) as database:
        (document,) = database.execute("SELECT document FROM ledger_payloads WHERE id = ?", [prediction]).fetchone()
        update = "UPDATE ledger_payloads SET document = ? WHERE id = ?"
        database.execute(update, [document.replace("confidence", "certainty"), prediction])
        try:
            summary = build()
        finally:
            database.execute(update, [document, prediction])
    assert summary["skipped"] == {"not_kept": 1, "unreadable": 0, "changed": 1}
    assert (summary["images"], summary["duplicates"]) == (2, 1)


def is_labelled(gateway: Gateway, prediction: str) -> bool:
    with closing(sqlite3.connect(gateway.database_path)) as database:
        return bool(database.execute("SELECT 1 FROM ledger_labels WHERE prediction = ?", [prediction]).fetchone())


def test_nothing_to_collect(build: Build, tmp_path: Path) -> None:
    """Without labelled images the command fails with `no_labelled_images` and leaves no folder."""
    assert build("--since", "2100-01-01", status=1)["error"]["code"] == "no_labelled_images"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists(build: Build) -> None:
    """An existing folder is not overwritten."""
    build()
    assert "already exists" in build(status=1)["error"]["detail"]


def test_the_table_shows_the_balance(gateway: Gateway, tmp_path: Path) -> None:
    """The table shows the number of images of each class, including classes without images, and the duplicates."""
    done = gateway.run("dataset", "build", "--out", str(tmp_path / "data"))
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[-1] == "1"] == ["forest", "river"]
    assert ["harbor", "0", "0", "0", "0"] in rows
    assert "2 further predictions of the same images." in done.stdout


def test_an_end_leaves_no_images(tmp_path: Path) -> None:
    """A terminated build removes its images, and a new build removes those of a killed one."""
    killed, out = tmp_path / ".data.0.incomplete", tmp_path / "data"
    killed.mkdir()
    found = list[Path]()

    def build_until_the_end() -> None:
        with new_folder(out):
            found.extend(tmp_path.iterdir())
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        build_until_the_end()
    assert len(found) == 1
    assert killed not in found
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
