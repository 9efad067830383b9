"""Run the gateway of another commit beside that of this tree, each from its own files and its own dependencies."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.gateways import UNLIMITED
from tests.support.gateway import PASSWORD, Gateway
from tests.support.paths import ROOT
from tests.support.ports import free_port

ENVIRONMENTS = ROOT / ".venv-compare"
_LOCK, _BUILD_LOCK = Path("requirements/run.txt"), Path("requirements/build.txt")
_INHERITED = ("PATH", "HOME", "LANG")


class ComparisonError(Exception):
    """The comparison cannot be made. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a commit, and the interpreter of an environment with the packages that they pin."""

    folder: Path
    python: Path


def find_previous_release(repository: Path = ROOT) -> str:
    """Return the commit of the newest release in the change log: its tag, or the commit that gave it its date.

    Raises ComparisonError.
    """
    found = re.search(r"^## (\d+\.\d+\.\d+) - ", (repository / "CHANGELOG.md").read_text(), re.MULTILINE)
    if found is None:
        raise ComparisonError("CHANGELOG.md names no release. Name the commit to compare with.")
    version = found[1]
    if _git(repository, "tag", "--list", f"v{version}"):
        return _git(repository, "rev-parse", f"v{version}^{{commit}}")
    dated = _git(repository, "log", "--format=%H", f"-S## {version} - ", "--", "CHANGELOG.md").split()
    if not dated:
        raise ComparisonError(f"The history has no commit of release {version}. Fetch it: git fetch --unshallow")
    return dated[-1]


@contextmanager
def checked_out(reference: str, repository: Path = ROOT) -> Iterator[Path]:
    """Check out the commit in a temporary working tree. Raises ComparisonError."""
    with tempfile.TemporaryDirectory(prefix="atalaya-compare-") as parent:
        folder = Path(parent) / "tree"
        _git(repository, "worktree", "add", "--detach", str(folder), reference)
        try:
            _write_metadata(folder)
            yield folder
        finally:
            _git(repository, "worktree", "remove", "--force", str(folder))


def _write_metadata(folder: Path) -> None:
    """Write the metadata of an installed distribution, from which the gateway reads its version."""
    version = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
    metadata = folder / f"atalaya-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: atalaya\nVersion: {version}\n")


def find_environment(folder: Path) -> Tree:
    """Return the files with a matching environment: this one, or one that is set up once for their lock file.

    Raises ComparisonError.
    """
    lock = (folder / _LOCK).read_bytes()
    if lock == (ROOT / _LOCK).read_bytes():
        return Tree(folder, Path(sys.executable))
    environment = ENVIRONMENTS / hashlib.sha256(lock).hexdigest()[:12]
    complete = environment / ".complete"
    if not complete.exists():
        print(f"setting up {environment.relative_to(ROOT)} with the packages of the other commit", flush=True)
        _run(sys.executable, "-m", "venv", "--clear", str(environment))
        pip = [str(environment / "bin" / "python"), "-m", "pip", "-qq", "--disable-pip-version-check"]
        # The other lock file may lack packages that this version of Python needs, so those of this tree come first.
        for file in (ROOT / _BUILD_LOCK, ROOT / _LOCK, folder / _LOCK):
            _run(*pip, "install", "--require-hashes", "--no-deps", "-r", str(file))
        complete.touch()
    return Tree(folder, environment / "bin" / "python")


def make_gateway_of(tree: Tree, home: Path) -> Gateway:
    """Return a gateway of the tree with the tree's own model, not started. Raises ComparisonError.

    The model is the one that the tree's .env.example names.
    """
    model = re.search(r"^MODEL__URL=onnx://(.+)$", (tree.folder / ".env.example").read_text(), re.MULTILINE)
    if model is None:
        raise ComparisonError(f"{tree.folder / '.env.example'} names no ONNX model in MODEL__URL.")
    environment = {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "PYTHONPATH": str(tree.folder),
        "ATALAYA_HOME": str(home),
        "PORT": str(free_port()),
        "METRICS_PORT": str(free_port()),
        "DATABASE_URL": f"sqlite:///{home}/gateway.db",
        "MODEL__URL": f"onnx://{tree.folder / model[1]}",
        "LIMITS__PREDICT": UNLIMITED,
        "LIMITS__TOKEN": "1000/minute",
    }
    program = home / "atalaya.py"
    program.write_text("from api.cli import main\n\nmain()\n")
    return Gateway(home, environment, [str(tree.python), str(program), "serve"])


@contextmanager
def running_gateway_of(tree: Tree) -> Iterator[Gateway]:
    """Start a gateway of the tree with the user `ana`, and stop it at the end. Raises ComparisonError.

    Sets it up with commands, because the modules of the tests differ between commits.
    """
    with tempfile.TemporaryDirectory(prefix="atalaya-gateway-") as folder:
        gateway = make_gateway_of(tree, Path(folder))
        _run_command(gateway, "secrets", "init")
        with suppress(ComparisonError):  # older releases lack this command
            _run_command(gateway, "models", "prepare")
        gateway.start()  # which creates the database
        try:
            _run_command(gateway, "users", "add", "ana", "--role", "client", "--password-stdin", stdin=PASSWORD)
            yield gateway
        finally:
            gateway.stop()


def _run_command(gateway: Gateway, *arguments: str, stdin: str = "") -> None:
    _run(*gateway.command[:-1], *arguments, cwd=gateway.folder, environment=gateway.environment, stdin=stdin)


def _git(repository: Path, *arguments: str) -> str:
    return _run("git", *arguments, cwd=repository)


def _run(*command: str, cwd: Path = ROOT, environment: dict[str, str] | None = None, stdin: str = "") -> str:
    done = subprocess.run(
        command, cwd=cwd, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise ComparisonError(f"{' '.join(command[:4])} … failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()
