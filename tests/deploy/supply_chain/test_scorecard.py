"""The checks of OpenSSF Scorecard that depend on files alone (github.com/ossf/scorecard, docs/checks.md)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.deploy.supply_chain.workflows import WORKFLOWS, list_jobs, list_steps, read_workflow
from tests.support.paths import ROOT

PINNED = re.compile(r"^\s*-? ?uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)+$")
# The permissions that Scorecard accepts for a job, where the job needs them.
JOB_PERMISSIONS = {"attestations", "contents", "id-token", "packages", "security-events"}
# Values that an outsider can choose, and that must therefore never become part of a command.
UNTRUSTED = re.compile(r"\$\{\{\s*(github\.(event|head_ref|ref_name|base_ref)|inputs\.|steps\.|matrix\.)")
EXECUTABLE_MAGIC = {
    b"\x7fELF": "ELF",
    b"MZ": "Windows",
    b"\xfe\xed\xfa": "Mach-O",
    b"\xcf\xfa\xed\xfe": "Mach-O",
    b"\xca\xfe\xba\xbe": "Java or Mach-O",
    b"\0asm": "WebAssembly",
    b"!<arch>": "archive of objects",
    b"dex\n": "Android",
}
BINARY_SUFFIXES = {".class", ".dll", ".dylib", ".exe", ".jar", ".pyc", ".pyo", ".rpm", ".deb", ".so", ".wasm", ".whl"}


def tracked_files() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    yield from (ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


def test_binary_artifacts() -> None:
    """The repository contains no binary executable, judged by name and by content."""
    found = []
    for path in tracked_files():
        with path.open("rb") as file:
            start = file.read(8)
        if path.suffix in BINARY_SUFFIXES or any(start.startswith(magic) for magic in EXECUTABLE_MAGIC):
            found.append(path.relative_to(ROOT))
    assert found == []


def test_pinned_actions() -> None:
    """Every third-party action is pinned to a full commit digest, with its version in a comment for updates."""
    lines = [line for path in WORKFLOWS for line in path.read_text().splitlines() if re.search(r"\buses:", line)]
    uses = [line for line in lines if "uses: ./" not in line]  # "./" is this repository, at the same commit
    assert uses
    assert [line for line in uses if not PINNED.match(line)] == []


def test_one_version_of_each_action() -> None:
    """All workflows use the same version of an action."""
    used = {step["uses"] for _, step in list_steps() if "uses" in step}
    repositories = {"/".join(use.split("/")[:2]).partition("@")[0] + "@" + use.partition("@")[2] for use in used}
    assert len(repositories) == len({use.partition("@")[0] for use in repositories})


def test_pinned_packages() -> None:
    """Python packages are installed with hashes from a lock file, npm packages from a lock file."""
    scripts = {
        "Dockerfile": (ROOT / "Dockerfile").read_text(),
        "Makefile": (ROOT / "Makefile").read_text(),
        ".ci/run": (ROOT / ".ci" / "run").read_text(),
        **{f"{name}: {index}": step.get("run", "") for index, (name, step) in enumerate(list_steps())},
    }
    for where, text in scripts.items():
        commands = text.replace("\\\n", " ").splitlines()
        for command in commands:
            if re.search(r"\bpip\b.* install\b|\bpip install\b", command):
                installs = re.split(r"&&|;", command)
                unpinned = [
                    each
                    for each in installs
                    if " install" in each and not re.search(r"--require-hashes|--no-deps", each)
                ]
                assert unpinned == [], where
            assert not re.search(r"\bnpm (install|i)\b|\bnpx\b|\bcurl\b.*\| *(ba)?sh\b", command), where


def test_pinned_base_images() -> None:
    """Every base image of the Dockerfile is pinned by digest, directly or by an argument with a digest."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", dockerfile, re.MULTILINE))
    stages = set(re.findall(r"^FROM .* AS (\S+)$", dockerfile, re.MULTILINE))
    for image in re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE):
        resolved = image
        while name := re.fullmatch(r"\$\{?(\w+)\}?", resolved):
            resolved = arguments[name[1]]
        assert resolved in stages or re.search(r"@sha256:[0-9a-f]{64}$", resolved), image


def test_token_permissions() -> None:
    """A workflow has no permissions by default; jobs get only acceptable write permissions, and jobs of CI none."""
    for path in WORKFLOWS:
        assert read_workflow(path)["permissions"] == {}, path.name
    for name, job in list_jobs():
        written = {scope for scope, access in job["permissions"].items() if access == "write"}
        assert written <= JOB_PERMISSIONS, name
        assert not written or not name.startswith("ci/"), name


def test_no_dangerous_workflow() -> None:
    """No workflow has a trigger that runs outsiders' changes with secrets, or makes their texts part of a command."""
    for path in WORKFLOWS:
        assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(read_workflow(path)["on"]), path.name
    assert [(name, step["run"]) for name, step in list_steps() if UNTRUSTED.search(step.get("run", ""))] == []


def test_checkout_keeps_no_credentials() -> None:
    """No checkout stores the workflow's token in the repository's configuration."""
    checkouts = [step for _, step in list_steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_dependency_update_tool() -> None:
    """Dependabot updates actions, images of Compose and every npm lock file.

    Renovate updates every Python lock file and the base image, whose name is in an argument that Dependabot ignores.
    """
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    ecosystems = {update["package-ecosystem"]: update for update in updates}
    assert {"docker-compose", "github-actions", "npm"} == set(ecosystems)
    locks = {f"/{path.parent.relative_to(ROOT)}" for path in tracked_files() if path.name == "package-lock.json"}
    assert set(ecosystems["npm"]["directories"]) == locks
    renovate = yaml.safe_load((ROOT / "renovate.json").read_text())
    assert renovate["enabledManagers"] == ["pip-compile", "dockerfile"]
    (pattern,) = renovate["pip-compile"]["managerFilePatterns"]
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "requirements").glob("*.txt")]
    assert files
    assert all(re.search(pattern.strip("/"), name) for name in files)


def test_static_analysis() -> None:
    """CodeQL analyses every language of the repository for each change."""
    workflow = read_workflow(next(path for path in WORKFLOWS if path.stem == "security"))
    assert {"pull_request", "push"} <= set(workflow["on"])
    languages = workflow["jobs"]["codeql"]["strategy"]["matrix"]["language"]
    assert set(languages) == {"actions", "javascript-typescript", "python"}


def test_security_policy() -> None:
    """SECURITY.md says where to report a vulnerability, and states response times in days."""
    policy = (ROOT / "SECURITY.md").read_text()
    assert re.search(r"https://\S+", policy)
    assert re.search(r"\b\d+ (?:working )?days\b", policy)
    assert re.search(r"(?i)vulnerabilit", policy)


def test_license() -> None:
    """LICENSE in the root contains the licence that the project declares."""
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
