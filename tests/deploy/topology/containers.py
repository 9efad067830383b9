"""Containers without an engine: services of the Compose file as processes with their own network, files and user.

Each has a root folder with the programs of this machine, the volumes and secrets at their paths in the container, and
the names and addresses of the services that share a network with it. Networks are bridges without a route to
anywhere else, like Compose's internal networks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S

_PROGRAM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", sys.base_prefix, str(ROOT))
_ETC = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "ssl", "alternatives", "localtime", "mime.types")
_PATH = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Networks:
    """The bridges of a Compose project, and the addresses of its services."""

    def __init__(self, compose: Mapping[str, Any], services: Sequence[str]) -> None:
        self._mark = uuid.uuid4().hex[:6]
        self._bridges: dict[str, str] = {}
        self._namespaces: list[str] = []
        self._services = {name: _networks(compose["services"][name]) for name in services}
        self._subnets = {
            name: _subnet(network, index) for index, (name, network) in enumerate(compose["networks"].items())
        }
        self._ranges = {
            name: ip_network(_ipam(network)["ip_range"])
            for name, network in compose["networks"].items()
            if "ip_range" in _ipam(network)
        }
        self._addresses = {name: self._assign(name) for name in self._subnets}

    def _assign(self, network: str) -> dict[str, str]:
        """Return the addresses of the services in a network: those in the file, and those that Docker would assign.

        Docker takes the lowest free address of `ip_range`, or else of the subnet. A fixed address counts as free until
        its service has started.
        """
        members = {name: used[network] for name, used in self._services.items() if network in used}
        fixed = {name: terms["ipv4_address"] for name, terms in members.items() if "ipv4_address" in terms}
        gateway, *free = (str(host) for host in self._subnets[network].hosts())
        others = [name for name in members if name not in fixed]
        if network in self._ranges:
            free = [host for host in free if ip_address(host) in self._ranges[network]]
        assert not set(free[: len(others)]) & set(fixed.values()), f"{network}: Docker may give a fixed address away"
        return {**fixed, **dict(zip(others, free, strict=False)), "host": gateway}

    def address(self, service: str, network: str) -> str:
        return self._addresses[network][service]

    def hosts(self, service: str) -> str:
        """Return /etc/hosts with the names of the services that a service can reach."""
        lines = ["127.0.0.1 localhost"]
        for network in self._services[service]:
            lines += [f"{address} {name}" for name, address in self._addresses[network].items()]
        return "\n".join(lines) + "\n"

    def join(self, service: str) -> str:
        """Create the service's network namespace with an interface in each of its networks; returns its name."""
        namespace = self._new_namespace()
        for index, network in enumerate(self._services[service]):
            self._plug(namespace, index, network, self.address(service, network))
        return namespace

    def join_as_host(self, network: str) -> str:
        """Create a namespace for a client that reaches the published ports of a network, as the host does."""
        namespace = self._new_namespace()
        self._plug(namespace, 0, network, self.address("host", network))
        return namespace

    def remove(self) -> None:
        for namespace in self._namespaces:
            _run("ip", "netns", "delete", namespace)

    @cached_property
    def _switch(self) -> str:
        """The namespace of the bridges. In the machine's own, a firewall such as Docker's would drop their packets."""
        return self._new_namespace()

    def _new_namespace(self) -> str:
        namespace = f"atl{self._mark}-{len(self._namespaces)}"
        _run("ip", "netns", "add", namespace)
        self._namespaces.append(namespace)
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    def _plug(self, namespace: str, index: int, network: str, address: str) -> None:
        if network not in self._bridges:
            bridge = f"bridge{len(self._bridges)}"
            _run("ip", "-n", self._switch, "link", "add", bridge, "type", "bridge")
            _run("ip", "-n", self._switch, "link", "set", bridge, "up")
            self._bridges[network] = bridge
        outer, inner = f"v{uuid.uuid4().hex[:10]}", f"eth{index}"
        _run("ip", "-n", self._switch, "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", namespace)
        _run("ip", "-n", self._switch, "link", "set", outer, "master", self._bridges[network], "up")
        length = self._subnets[network].prefixlen
        _run("ip", "-n", namespace, "address", "add", f"{address}/{length}", "dev", inner)
        _run("ip", "-n", namespace, "link", "set", inner, "up")


def _networks(service: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    networks = service["networks"]
    return dict(networks) if isinstance(networks, dict) else {name: {} for name in networks}


def _ipam(network: Mapping[str, Any]) -> Mapping[str, str]:
    config: Mapping[str, str] = network.get("ipam", {}).get("config", [{}])[0]
    return config


def _subnet(network: Mapping[str, Any], index: int) -> IPv4Network:
    subnet = ip_network(_ipam(network).get("subnet", f"172.31.{240 + index}.0/28"))
    assert isinstance(subnet, IPv4Network)
    return subnet


@dataclass(frozen=True)
class _Mount:
    source: Path
    target: str
    read_only: bool = False

    def command(self, root: Path) -> str:
        target = f"'{root}{self.target}'"
        remount = f"mount -o remount,bind,ro {target}\n" if self.read_only else ""
        return f"mount --rbind '{self.source}' {target}\n{remount}"


@dataclass
class Container:
    """A service that runs `command` as `user`; `environment` is added to that of the Compose file."""

    folder: Path
    service: Mapping[str, Any]
    secrets: Mapping[str, Mapping[str, str]]
    namespace: str
    hosts: str
    command: Sequence[str]
    user: str = "root"
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._make_root()
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                self._enter(self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def run(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as `docker compose exec` does."""
        return subprocess.run(
            self._enter(command), input=stdin, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )

    def is_healthy(self) -> bool:
        """Return the result of the health check in the Compose file."""
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        _, *check = self.service["healthcheck"]["test"]
        return self.run(*check).returncode == 0

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)

    def _make_root(self) -> None:
        root = self.folder / "root"
        for name in _ETC:
            source, target = Path("/etc") / name, root / "etc" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            elif source.exists():
                shutil.copy(source, target)
        (root / "etc" / "hosts").write_text(self.hosts)
        for text in ("/tmp", *self.service.get("tmpfs", [])):  # noqa: S108  (inside of the root)
            folder = root / text.partition(":")[0].lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o1777)
        for mount in self._mounts():
            target = root / mount.target.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch() if mount.source.is_file() else target.mkdir(exist_ok=True)

    def _mounts(self) -> list[_Mount]:
        folders = (Path(folder) for folder in dict.fromkeys(_PROGRAM_FOLDERS))
        mounts = [_Mount(folder, str(folder), read_only=True) for folder in folders if folder.exists()]
        mounts += [_Mount(Path(folder), folder) for folder in ("/proc", "/sys", "/dev")]
        for volume in self.service.get("volumes", []):
            source, target, *options = volume.split(":")
            if source.startswith("./"):
                mounts.append(_Mount(ROOT / source, target, read_only="ro" in options))
            elif source != "/":  # the node exporter mounts the whole machine
                mounts.append(_Mount(self.volume(source), target))
        for name in self.service.get("secrets", []):
            mounts.append(_Mount(Path(self.secrets[name]["file"]), f"/run/secrets/{name}", read_only=True))
        return mounts

    def volume(self, name: str) -> Path:
        """Return the folder that is used as a named volume. It belongs to the container's user."""
        volume = self.folder / "volumes" / name
        if not volume.exists():
            volume.mkdir(parents=True)
            shutil.chown(volume, *self._owner())
        return volume

    def _owner(self) -> tuple[str | int, str | int]:
        user, _, group = self.user.partition(":")
        return (int(user), int(group)) if group else (user, user)

    def _enter(self, command: Sequence[str]) -> list[str]:
        """Return a command line that runs `command` with the container's network, files, user and environment."""
        root = self.folder / "root"
        mounts = "".join(mount.command(root) for mount in self._mounts())
        variables = {"PATH": _PATH, **self.service.get("environment", {}), **self.environment}
        script = f'set -e\n{mounts}exec chroot --userspec="$1" "{root}" "${{@:2}}"'
        network = ["ip", "netns", "exec", self.namespace]
        isolation = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script, "bash", self.user]
        return [*network, *isolation, "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command]


def is_possible() -> bool:
    """Return whether this machine lets a test create network namespaces and mounts."""
    return os.geteuid() == 0 and shutil.which("ip") is not None
