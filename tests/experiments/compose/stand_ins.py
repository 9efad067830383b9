"""Stand-ins for the images of docker-compose.yml on a machine that reaches no registry."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.deploy.image.building import make_debian_base, read_base_name
from tests.deploy.topology.compose_file import read_compose_file
from tests.experiments.compose.project import docker
from tests.support.paths import BIN

FOLDER = Path(__file__).parent
SERVICES = ("postgres", "redis", "caddy", "prometheus", "alertmanager", "node-exporter")
_BASE = "atalaya-stand-in/base"
_PYTHON = "atalaya-stand-in/python"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@contextmanager
def stand_ins() -> Iterator[list[str]]:
    """Build the images that Docker neither has nor can pull; yield the options for building the gateway's image.

    These images and the gateway's are removed at the end.
    """
    services = read_compose_file({})["services"]
    images = {name: services[name]["image"] for name in SERVICES if not is_available(services[name]["image"])}
    options: list[str] = []
    if not is_available(read_base_name()):
        images["python"] = _PYTHON
        options = ["--build-arg", f"PYTHON_IMAGE={_PYTHON}"]
    try:
        with TemporaryDirectory() as folder:
            _make(images, Path(folder))
        yield options
    finally:
        docker("image", "rm", "--force", *images.values(), services["gateway"]["image"])


def is_available(image: str) -> bool:
    """Return whether Docker has an image, or can pull it."""
    for command in (("image", "inspect", image), ("pull", "--quiet", image)):
        try:
            docker(*command)
        except AssertionError:
            continue
        return True
    return False


def _make(images: dict[str, str], folder: Path) -> None:
    if not images:
        return
    for file in (FOLDER / "Dockerfile", FOLDER / "postgres.sh", BIN / "caddy", _CERTIFICATES):
        shutil.copy(file, folder)
    docker("import", str(make_debian_base()), _BASE)
    for stage, image in images.items():
        docker("build", "--build-arg", f"BASE={_BASE}", "--target", stage, "--tag", image, str(folder))
    docker("image", "rm", _BASE)
