"""A copy of the checkout with its own environment, like that of a new user for whom `make` has installed everything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S

_PACKAGES = ("api", "auth", "model", "monitoring", "storage", "samples")
_FILES = ("Makefile", "README.md", "pyproject.toml", ".env.example")
_LINKS = ("artifacts", "requirements")
_SCRIPT = "#!{python}\nimport sys\nfrom api.cli import main\nsys.exit(main())\n"


@dataclass(frozen=True)
class Checkout:
    """`environment` is the whole environment of its commands: few settings, and a home directory without dotfiles."""

    folder: Path
    environment: dict[str, str]

    @property
    def atalaya(self) -> str:
        return str(self.folder / ".venv" / "bin" / "atalaya")

    def run(
        self, *command: str, stdin: str = "", cwd: Path | None = None, changes: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with `changes` to the environment."""
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd or self.folder,
            env={**self.environment, **(changes or {})},
            timeout=PATIENCE_S,
        )


def make_checkout(folder: Path, port: int) -> Checkout:
    """Copy what the commands need, and create an environment that uses this one's libraries: nothing is installed."""
    for name in _PACKAGES:
        shutil.copytree(ROOT / name, folder / name)
    for name in _FILES:
        shutil.copy(ROOT / name, folder / name)
    for name in _LINKS:
        (folder / name).symlink_to(ROOT / name)
    environment = folder / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=PATIENCE_S)
    libraries = environment / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (libraries / "checkout.pth").write_text(f"{folder}\n{sysconfig.get_path('purelib')}\n")
    script = environment / "bin" / "atalaya"
    script.write_text(_SCRIPT.format(python=environment / "bin" / "python"))
    script.chmod(0o755)
    (environment / ".run").touch()  # make installs into an environment that is older than its requirements
    user = folder.parent / f"{folder.name}-user"
    user.mkdir()
    (user / ".zshrc").touch()  # without this file, zsh asks new users for a configuration
    inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    variables = {"PORT": str(port), "HOME": str(user), "TERM": "xterm", "PS1": "$ ", "DRAIN_SECONDS": "0"}
    return Checkout(folder, {**inherited, **variables})
