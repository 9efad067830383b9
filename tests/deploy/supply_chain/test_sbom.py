"""`make sbom`: the CycloneDX list of the packages in the image."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from typing import Any

import pytest

from deploy.release.sbom import LIST, find_differences, read_components
from tests.deploy.supply_chain.pins import read_pins
from tests.support.paths import BIN, ROOT


@pytest.fixture(scope="module")
def sbom(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The document that the command of the Makefile writes."""
    path = tmp_path_factory.mktemp("sbom") / "atalaya.cdx.json"
    (command,) = re.findall(r"^\t@(\$\(BIN\)/python .*cyclonedx_py .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    command = command.replace("$(BIN)", str(BIN)).replace("atalaya.cdx.json", str(path))
    subprocess.run(command.split(), cwd=ROOT, check=True, capture_output=True)
    return json.loads(path.read_text())


def test_sbom_lists_what_the_lock_file_pins(sbom: Any) -> None:
    """The SBOM lists the gateway and every package of run.txt, which the image installs, and nothing else."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    pins = read_pins(ROOT / "requirements" / "run.txt")
    assert read_components(sbom) == {*pins, f"atalaya=={version}"}
    assert find_differences(sbom, [*pins, f"Atalaya=={version}"]) == []


def test_lock_file_installs_everything_everywhere() -> None:
    """No package of run.txt depends on a platform or a version of Python, so all images install all of them."""
    lines = (ROOT / "requirements" / "run.txt").read_text().splitlines()
    assert [line for line in lines if "==" in line and ";" in line] == []


def test_components_have_hashes_and_addresses(sbom: Any) -> None:
    """Each component has its package URL and the hashes of its files, by which a scanner finds it."""
    for component in sbom["components"]:
        assert component["purl"].startswith("pkg:pypi/")
        assert any(reference.get("hashes") for reference in component["externalReferences"]), component["name"]


def test_differences_are_found(sbom: Any) -> None:
    """A package that only the image has and a package that only the SBOM has are both reported."""
    installed = sorted(read_components(sbom) - {next(iter(read_pins(ROOT / "requirements" / "run.txt")))})
    differences = find_differences(sbom, [*installed, "surplus==1.0"])
    assert "surplus==1.0 is installed but not listed" in differences
    assert len(differences) == 2


def test_installed_packages_are_listed_by_name_and_version(sbom: Any) -> None:
    """The command that runs in the image prints each installed distribution, and so all of the SBOM, as NAME==VERSION.

    This environment also has the packages for development.
    """
    printed = subprocess.run([BIN / "python", "-c", LIST], check=True, capture_output=True, text=True).stdout.split()
    assert all(re.fullmatch(r"[\w.-]+==\S+", line) for line in printed)
    assert [line for line in find_differences(sbom, printed) if line.endswith("not installed")] == []
