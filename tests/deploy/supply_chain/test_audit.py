"""`make audit`, against a local double of the OSV service."""

from __future__ import annotations

import json
import os
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.paths import BIN, ROOT
from tests.support.ports import free_port
from tests.support.servers.running import running

ADVISORY = {
    "id": "GHSA-0000-0000-0000",
    "modified": "2026-01-01T00:00:00Z",
    "published": "2026-01-01T00:00:00Z",
    "summary": "An invented weakness of the tests",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "weak"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


class Advisories(BaseHTTPRequestHandler):
    """Returns one advisory, about the package `weak`."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"vulns": [ADVISORY]} if query["package"]["name"] == "weak" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        pass


def audit(port: int, *lock_files: Path) -> subprocess.CompletedProcess[str]:
    """Audit lock files with the advisories of the service on a local port."""
    options = ["--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{port}/v1/query"]
    environment = {**os.environ, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [BIN / "python", "-m", "deploy.release.audit", *options, *lock_files],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    """A lock file that pins the package `weak` and a package without advisories."""
    path = tmp_path / "lock.txt"
    path.write_text("".join(f"{name}==1.0 --hash=sha256:{'0' * 64}\n" for name in ("sound", "weak")))
    return path


def test_advisories_are_found(lock_file: Path) -> None:
    """The audit fails, and names each affected package with the advisory and the version that fixes it."""
    with running(ThreadingHTTPServer(("127.0.0.1", 0), Advisories)) as server:
        result = audit(server.server_port, lock_file)
    assert result.returncode == 1
    assert "weak 1.0: GHSA-0000-0000-0000, fixed in 2.0" in result.stdout
    assert "sound" not in result.stdout


def test_unreachable_advisories_fail_the_audit(lock_file: Path) -> None:
    """The audit fails if the service cannot be reached, because nothing is known then."""
    result = audit(free_port(), lock_file)
    assert result.returncode == 1
    assert "error: The advisories could not be read" in result.stdout
    assert "no advisories" not in result.stdout


def test_unaffected_lock_files_pass() -> None:
    """build.txt passes when the service has no advisory for any of its packages."""
    with running(ThreadingHTTPServer(("127.0.0.1", 0), Advisories)) as server:
        result = audit(server.server_port, ROOT / "requirements" / "build.txt")
    assert (result.returncode, result.stderr) == (0, "")
    assert "no advisories" in result.stdout
