"""Run a gateway from the root file system of an image, as a container engine does, with standard Linux tools."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key
from tests.deploy.image.building import Image
from tests.support.gateway import PASSWORD, Gateway
from tests.support.linux import processes
from tests.support.polling import PATIENCE_S
from tests.support.ports import free_port

# In separate namespaces: a read-only root, a writable volume for the state, and a writable /tmp.
_ENTER = """set -e
root=$1 volume=$2 folder=$3 user=$4 group=$5
shift 5
mount --bind "$root" "$root"
mount --bind "$volume" "$root/app/var"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec setpriv --clear-groups --no-new-privs \
  unshare --root "$root" --wd "$folder" --setgid "$group" --setuid "$user" -- "$@"
"""


@dataclass
class Container(Gateway):
    """A gateway that is process 1 of its namespace. `user` is the image's user as UID:GID."""

    user: str = ""

    @property
    def main_pid(self) -> int:
        """The gateway's process id outside its namespace."""
        (pid,) = processes.children(self.pid)
        return pid

    def stop(self) -> int:
        """Send SIGTERM to the gateway and return its exit status."""
        for client in self.clients:
            client.close()
        os.kill(self.main_pid, signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """Kill the gateway, and with it all processes of its namespace."""
        os.kill(self.main_pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def add_user(self, name: str, role: str = "client") -> None:
        """Add a user with the image's own command."""
        added = self.run("users", "add", name, "--role", role, "--password-stdin", stdin=PASSWORD)
        if added.returncode:
            raise RuntimeError(added.stderr)

    def run(self, *arguments: str, stdin: str = "", limit_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run one `atalaya` command in the container."""
        return self.execute(["atalaya", *arguments], stdin, limit_s)

    def execute(
        self, command: list[str], stdin: str = "", limit_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as `docker exec` does."""
        user, _, group = self.user.partition(":")
        enter = ["nsenter", f"--target={self.main_pid}", "--mount", "--pid", "--root", "--wd"]
        return subprocess.run(
            [*enter, f"--setuid={user}", f"--setgid={group}", "--", *command],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            timeout=limit_s,
        )


def make_container(image: Image, folder: Path) -> Container:
    """Make a container with production settings and a volume in `folder`, without starting it."""
    user, _, group = image.config["User"].partition(":")
    volume = folder / "volume"
    volume.mkdir()
    os.chown(volume, int(user), int(group))
    environment = {
        **dict(variable.split("=", 1) for variable in image.config["Env"]),
        "ENVIRONMENT": "production",
        "PORT": str(free_port()),
        "METRICS_PORT": str(free_port()),
        "ALLOWED_HOSTS": "127.0.0.1",
        "AUTH__ISSUER": "https://land.example.org",
        "AUTH__SIGNING_KEY": generate_signing_key("ES256"),
        "LEDGER__SIGNING_KEY": new_private_key(),
    }
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh"]
    inside = [str(image.root), str(volume), image.config["WorkingDir"], user, group, *image.config["Cmd"]]
    return Container(folder, environment, [*namespaces, *inside], user=image.config["User"])
