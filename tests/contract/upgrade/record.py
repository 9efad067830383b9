"""Record the data that a release writes: its database, spool, export and public key, as text.

    python tests/contract/upgrade/record.py ATALAYA DIRECTORY

ATALAYA is the `atalaya` command of the release; DIRECTORY receives the files. The script uses only the command line and
HTTP, so that it works with every release.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "samples"
ONNX = f"onnx://{ROOT}/artifacts/efficientnetb0-v1.1"
STUB = "stub://"
PASSWORD = "correct horse battery"


class Release:
    """An installation of the release in a directory of its own, with the users `ana` and `bob`."""

    def __init__(self, atalaya: Path, directory: Path) -> None:
        self._atalaya = atalaya
        self._directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = str(probe.getsockname()[1])
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "PORT": self._port}
        self.run("secrets", "init")
        for name in ("ana", "bob"):
            self.run("users", "add", name, "--role", "client", "--password-stdin", stdin=PASSWORD)

    @property
    def database(self) -> Path:
        return self._directory / "var" / "atalaya.db"

    @property
    def spools(self) -> list[Path]:
        return sorted((self._directory / "var" / "spool").glob("*.spool"))

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run one command; returns its standard output."""
        result = subprocess.run(
            [self._atalaya, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=True,
            cwd=self._directory,
            env=self._environment,
        )
        return result.stdout

    @contextmanager
    def serving(self, model: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
        """Serve `model`; yields the base URL and the process, which is shut down at the end."""
        environment = {**self._environment, "MODEL__URL": model, "DRAIN_SECONDS": "0"}
        log = (self._directory / "gateway.log").open("ab")
        process = subprocess.Popen(
            [self._atalaya, "serve"], cwd=self._directory, env=environment, stdout=log, stderr=log
        )
        url = f"http://127.0.0.1:{self._port}"
        try:
            while True:
                try:
                    httpx.get(f"{url}/readyz").raise_for_status()
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield url, process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)
            log.close()


def headers(url: str, user: str) -> dict[str, str]:
    form = {"grant_type": "password", "username": user, "password": PASSWORD}
    token = httpx.post(f"{url}/auth/token", data=form).raise_for_status().json()["access_token"]
    return {"Authorization": f"Bearer {token}"}


def predict(url: str, authorization: dict[str, str], sample: str) -> str:
    """Send a sample; returns the prediction's id."""
    file = (SAMPLES / sample).read_bytes()
    response = httpx.post(f"{url}/v1/predictions", headers=authorization, files={"file": file}, timeout=30)
    prediction_id: str = response.raise_for_status().json()["id"]
    return prediction_id


def main(atalaya: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        release = Release(atalaya, Path(scratch))
        of_the_shipped_model: dict[str, str] = {}
        with release.serving(ONNX) as (url, _):
            ana, bob = headers(url, "ana"), headers(url, "bob")
            for sample in ("yellowstone_forest.jpg", "soaproot_shrubland.jpg"):
                of_the_shipped_model[predict(url, ana, sample)] = sample
            erased = predict(url, bob, "yellowstone_forest.jpg")
            refused = httpx.post(f"{url}/v1/predictions", headers=ana, files={"file": b"not an image"})
            assert refused.status_code == 415, refused.text
            wrong = {"grant_type": "password", "username": "ana", "password": "wrong horse battery"}
            assert httpx.post(f"{url}/auth/token", data=wrong).status_code == 400
            key = httpx.post(f"{url}/v1/keys", headers=ana, json={"name": "maps", "scopes": ["predict"]})
            assert key.status_code == 201, key.text
            time.sleep(1)  # refusals are written in the background
        with release.serving(STUB) as (url, process):
            ana = headers(url, "ana")
            of_the_stub = {predict(url, ana, "yellowstone_forest.jpg"): "yellowstone_forest.jpg"}
            with closing(sqlite3.connect(release.database, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")  # the gateway cannot write: it spools
                spooled = predict(url, ana, "yellowstone_forest.jpg")
                process.kill()
                process.wait(30)
                other.execute("ROLLBACK")
        release.run("ledger", "erase", "--principal", "bob", "--yes")
        facts = {
            "public_key": release.run("ledger", "key").strip(),
            "of_the_shipped_model": of_the_shipped_model,
            "of_the_stub": of_the_stub,
            "erased": erased,
            "spooled": spooled,
        }
        release.run("ledger", "export", str(directory / "export.jsonl"))
        (spool,) = (path for path in release.spools if rows(path))
        (directory / "database.sql").write_text(dump(release.database))
        (directory / "spool.sql").write_text(dump(spool))
        (directory / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")


def rows(spool: Path) -> int:
    with closing(sqlite3.connect(spool)) as connection:
        count: int = connection.execute("SELECT count(*) FROM waiting").fetchone()[0]
    return count


def dump(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump()) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
