"""The comparison with another commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.compare import REFERENCE, THIS, find_slower, format_comparison, measure
from bench.releases import ComparisonError, checked_out, find_previous_release
from tests.bench.samples import make_rounds

STEADY = [50.0] * 9


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Ana", "-c", "user.email=ana@example.org", *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.strip()


def commit_changelog(repository: Path, text: str) -> str:
    (repository / "CHANGELOG.md").write_text(text)
    (repository / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "Change the log")
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    return tmp_path


@pytest.mark.parametrize(
    ("ratios", "slower"),
    [
        ([1.0] * 9, False),
        ([0.96] * 9, False),
        ([0.93] * 9, True),
        ([0.90, 0.91, 0.93, 0.94, 0.94, 0.94, 0.94, 0.94, 1.4], True),
        ([0.90, 0.91, 0.93, 0.94, 0.94, 0.94, 0.94, 1.0, 1.4], False),
        ([0.2, 0.3, 0.97, 0.98, 0.99, 1.0, 1.0, 1.0, 1.0], False),
    ],
    ids=["equal", "4-percent", "7-percent", "one-lucky", "two-lucky", "two-disturbed"],
)
def test_only_a_clear_fall_fails(ratios: list[float], slower: bool) -> None:
    """The comparison fails when even the upper end of the confidence interval is below 0.95."""
    rates = [rate * ratio for rate, ratio in zip(STEADY, ratios, strict=True)]
    results = make_rounds({THIS: rates, REFERENCE: STEADY}, (4,))
    assert find_slower(results, (4,)) == ([4] if slower else [])
    assert format_comparison(results, (4,))[1].endswith("SLOWER" if slower else "ok")


def test_each_number_of_connections_is_judged() -> None:
    """A fall at one number of connections is reported, however fast the others are."""
    results = make_rounds({THIS: [60.0] * 9, REFERENCE: STEADY})
    results.samples[THIS, 16] = make_rounds({THIS: [40.0] * 9}, (16,)).samples[THIS, 16]
    assert find_slower(results) == [16]
    assert [line.split()[0] for line in format_comparison(results)[1:]] == ["1", "4", "16"]


def test_the_previous_release_is_the_newest_in_the_change_log(repository: Path) -> None:
    """Without a tag, the release is the commit that gave the newest version its date."""
    commit_changelog(repository, "## Unreleased\n\n## 1.1.0 - 2026-01-01\n")
    released = commit_changelog(repository, "## Unreleased\n\n## 1.2.0 - 2026-02-01\n\n## 1.1.0 - 2026-01-01\n")
    commit_changelog(repository, "## Unreleased\n- More\n\n## 1.2.0 - 2026-02-01\n\n## 1.1.0 - 2026-01-01\n")
    assert find_previous_release(repository) == released


def test_a_tag_names_the_release(repository: Path) -> None:
    """The tag of the newest version takes precedence, as the change log may be dated before the release is complete."""
    commit_changelog(repository, "## 1.2.0 - 2026-02-01\n")
    tagged = commit_changelog(repository, "## Unreleased\n- More\n\n## 1.2.0 - 2026-02-01\n")
    git(repository, "tag", "v1.2.0")
    commit_changelog(repository, "## Unreleased\n- And more\n\n## 1.2.0 - 2026-02-01\n")
    assert find_previous_release(repository) == tagged


def test_a_change_log_without_a_release_is_an_error(repository: Path) -> None:
    """If the change log has no release, the error asks for the name of a commit."""
    commit_changelog(repository, "## Unreleased\n")
    with pytest.raises(ComparisonError, match="Name the commit"):
        find_previous_release(repository)


def test_the_other_commit_is_checked_out_for_a_while(repository: Path) -> None:
    """The files of the other commit are in a working tree of their own, which is removed at the end."""
    first = commit_changelog(repository, "first\n")
    commit_changelog(repository, "second\n")
    with checked_out(first, repository) as folder:
        assert (folder / "CHANGELOG.md").read_text() == "first\n"
        assert list(folder.glob("atalaya-1.2.0.dist-info/METADATA"))
    assert not folder.exists()
    assert git(repository, "worktree", "list").count("\n") == 0
    assert (repository / "CHANGELOG.md").read_text() == "second\n"


def test_an_unknown_reference_is_an_error(repository: Path) -> None:
    """The error about an unknown commit names it."""
    commit_changelog(repository, "first\n")
    with pytest.raises(ComparisonError, match="nowhere"), checked_out("nowhere", repository):
        raise AssertionError


def test_gateways_of_both_trees_are_measured() -> None:
    """The gateways of both working trees are measured, and none of their predictions fails."""
    results = measure("HEAD", 1, 0.3, (1,))
    assert {name: [sample.failed for sample in samples] for (name, _), samples in results.samples.items()} == {
        THIS: [0],
        REFERENCE: [0],
    }
    assert all(sample.rate > 0 for samples in results.samples.values() for sample in samples)
