"""The image, built from the Dockerfile and run from its root file system."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.release.sbom import normalise
from tests.deploy.image.building import Buildah, Image
from tests.deploy.image.container import Container, make_container
from tests.deploy.supply_chain.pins import read_pins
from tests.support.paths import FOREST, ROOT

pytestmark = pytest.mark.long
SHIPPED = "artifacts/efficientnetb0-v1.1"
MAX_BYTES_OVER_BASE = 400_000_000
# Programs with which an attacker could add others, and packages that only training needs.
ABSENT_PROGRAMS = {"pip", "pip3", "cc", "c++", "gcc", "g++", "clang", "as", "ld", "make"}
ABSENT_PACKAGES = {"pip", "setuptools", "ensurepip", "tensorflow", "keras"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    buildah = Buildah(tmp_path_factory.mktemp("image"))
    try:
        yield buildah.build("gateway")
    finally:
        buildah.close()


@pytest.fixture
def container(image: Image, tmp_path: Path) -> Iterator[Container]:
    """A container that is not started."""
    container = make_container(image, tmp_path)
    yield container
    if container.is_running:
        container.kill()


def used_bytes(root: Path) -> int:
    """Return the disk space that the files use."""
    done = subprocess.run(["du", "-sx", "--block-size=1", root], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def test_image_has_neither_pip_nor_compiler_nor_tensorflow(image: Image) -> None:
    """The image contains no program that installs or compiles software, and no TensorFlow."""
    programs = {path.name for path in image.root.glob("**/*bin/*")}
    packages = {path.name for path in image.root.glob("**/python3*/**/*") if path.is_dir()}
    assert {"atalaya", "python3"} <= programs
    assert {"onnxruntime", "encodings"} <= packages
    assert not programs & ABSENT_PROGRAMS
    assert not packages & ABSENT_PACKAGES


def test_image_installs_what_the_sbom_lists(image: Image) -> None:
    """The image contains the gateway and exactly the packages of run.txt, which the SBOM of a release lists."""
    folders = image.root.glob("opt/venv/lib/python3.*/site-packages/*.dist-info")
    names = (folder.name.removesuffix(".dist-info").rpartition("-") for folder in folders)
    installed = {f"{normalise(name)}=={version}" for name, _, version in names}
    gateway = {each for each in installed if each.startswith("atalaya==")}
    assert len(gateway) == 1
    assert installed - gateway == read_pins(ROOT / "requirements" / "run.txt")


def test_state_folder_is_private(image: Image) -> None:
    """Only the image's user and group can enter the state folder, whose owner and mode a volume inherits."""
    state = (image.root / "app/var").stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o777) == (10001, 10001, 0o750)


def test_image_is_small(image: Image) -> None:
    """The image adds less than 400 MB to its base, and about as much as the guide says."""
    added = used_bytes(image.root) - used_bytes(image.base)
    assert added < MAX_BYTES_OVER_BASE
    (documented,) = re.findall(
        r"^\| \*\*total\*\* \| \*\*(\d+)\*\* \|$", (ROOT / "docs/deploy/image.md").read_text(), re.M
    )
    assert int(documented) == pytest.approx(added / 1e6, rel=0.1)


def test_gateway_predicts_without_privileges_and_ends_in_order(image: Image, container: Container) -> None:
    """A container with a read-only root predicts as an ordinary user, is healthy, and exits with 0 on SIGTERM."""
    container.start()
    assert_unprivileged(container.main_pid)
    container.add_user("ana")
    response = container.client().post("/v1/predictions", files={"file": FOREST.read_bytes()})
    assert (response.status_code, response.json()["label"]) == (200, "forest")
    kind, *health_check = image.config["Healthcheck"]["Test"]
    done = container.execute(health_check)
    assert (kind, done.returncode) == ("CMD", 0), done.stderr
    assert container.stop() == 0, container.log()
    assert "Traceback" not in container.log()


def test_shipped_model_is_added_to_a_registry(container: Container) -> None:
    """In the image, which leaves out model.keras, the guides' commands verify the model, add it and promote it."""
    container.environment["MODEL__REGISTRY"] = "file:///app/var/models"
    container.start()
    for arguments in (
        ("verify", SHIPPED),
        ("add", SHIPPED),
        ("promote", "efficientnetb0", "1.1", "--why", "first version"),
        ("verify", "efficientnetb0", "1.1"),
    ):
        done = container.run("models", *arguments)
        assert done.returncode == 0, done.stderr


def assert_unprivileged(pid: int) -> None:
    """Check that the process runs as the image's user without capabilities, and that its root is read-only."""
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    assert status["Uid"].split() == status["Gid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == 0
    mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    assert {options.split(",")[0] for _, _, _, _, point, options, *_ in mounts if point == "/"} == {"ro"}
