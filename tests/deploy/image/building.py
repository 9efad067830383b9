"""Build the image with buildah, which needs no container engine, and inspect the result."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.requirements import find_program, missing

DOCKERFILE = ROOT / "Dockerfile"
_DEBIAN = "trixie"  # the Debian release and the Python version of python:3.13-slim
_DEBIAN_BASE = ROOT / "var/cache" / f"image-base-{_DEBIAN}.tar"  # cached, because making it takes a minute
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_PULL_LIMIT_S = 120.0


@dataclass(frozen=True)
class Image:
    """A built image: its configuration in Docker's format, its root file system, and that of its base image."""

    config: dict[str, Any]
    root: Path
    base: Path


class Buildah:
    """Builds images in `folder`, which contains all images and containers until `close`."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            missing("building an image and mounting its root takes root")
        storage = [f"--root={folder}/storage", f"--runroot={folder}/run", "--storage-driver=overlay"]
        self._command = [find_program("buildah"), *storage]

    def build(self, target: str) -> Image:
        """Build a stage of the Dockerfile. Raises AssertionError."""
        base = self._pull_base() or self._make_base()
        # This machine's certificates: the base image may not trust the certificate of the package index.
        options = ["--quiet", "--isolation=chroot", "--format=docker", f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro"]
        image = self._run("bud", *options, f"--build-arg=PYTHON_IMAGE={base}", f"--target={target}", str(ROOT))
        name = image.splitlines()[-1]
        config = json.loads(self._run("inspect", "--type=image", name))["Docker"]["config"]
        return Image(config, self._mount(name), self._mount(base))

    def close(self) -> None:
        """Remove the containers and images."""
        self._run("rm", "--all")
        self._run("rmi", "--all", "--force")

    def _pull_base(self) -> str | None:
        """Pull the Dockerfile's base image. Returns None if no registry is reachable."""
        name = read_base_name()
        try:
            pulled = subprocess.run(
                [*self._command, "pull", "--quiet", name], capture_output=True, timeout=_PULL_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        return None if pulled.returncode else name

    def _make_base(self) -> str:
        container = self._run("from", "scratch")
        self._run("add", "--quiet", container, str(make_debian_base()), "/")
        self._run("config", f"--env=PATH={_PATH}", container)
        self._run("commit", "--quiet", "--rm", container, "base")
        return "localhost/base"

    def _mount(self, image: str) -> Path:
        return Path(self._run("mount", self._run("from", image)))

    def _run(self, *arguments: str) -> str:
        return _check([*self._command, *arguments])


def read_base_name() -> str:
    """Return the name of the Dockerfile's default base image."""
    (name,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    return str(name)


def make_debian_base() -> Path:
    """Return the archive of a root file system with Debian's Python, from mmdebstrap's default mirror."""
    if not _DEBIAN_BASE.exists():
        _DEBIAN_BASE.parent.mkdir(parents=True, exist_ok=True)
        unfinished = _DEBIAN_BASE.with_suffix(f".{os.getpid()}.tar")
        packages = "--include=python3,python3-venv,ca-certificates"
        _check([find_program("mmdebstrap"), "--variant=minbase", packages, _DEBIAN, str(unfinished)])
        unfinished.replace(_DEBIAN_BASE)
    return _DEBIAN_BASE


def _check(command: list[str]) -> str:
    """Return the output of a command. Raises AssertionError with all its output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout.strip()
