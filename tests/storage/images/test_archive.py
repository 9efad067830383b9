"""Keeping, reading and removing images, in a folder and in a bucket of moto's server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from uuid_utils import uuid7

from storage.images.archive import ImageArchive
from storage.images.blobs import Blobs
from storage.images.errors import ImageStoreUnavailable
from storage.images.opening import open_blobs
from storage.images.sealing import ImageSeal
from tests.support.servers.aws import list_variables, running_aws
from tests.support.servers.running import running

ANA, BOB = str(uuid4()), str(uuid4())
IMAGE = b"an image of a forest" * 20
NOW = datetime.now(UTC)
SEAL = ImageSeal([os.urandom(32)])


def name_at(moment: datetime) -> str:
    """Return the id of a prediction that was made at that time."""
    return str(uuid7(nanoseconds=int(moment.timestamp() * 1e9)))


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    with running_aws() as url:
        yield url


@pytest.fixture(params=["folder", "bucket"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    if request.param == "folder":
        return open_blobs(f"file://{tmp_path}/images")
    for name, value in list_variables(request.getfixturevalue("aws")).items():
        monkeypatch.setenv(name, value)
    bucket = f"images-{uuid4()}"
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    return open_blobs(f"s3://{bucket}/gateway/kept?region=us-east-1")


def test_kept_images_are_encrypted(blobs: Blobs) -> None:
    """A kept image can be read again, and the stored file does not contain it in plaintext."""
    archive, name = ImageArchive(blobs, SEAL), name_at(NOW)
    size = archive.keep(ANA, name, IMAGE)
    assert archive.read(ANA, name) == IMAGE
    assert size <= archive.measure() < size + 8192  # files in a folder take whole blocks
    stored = blobs.read(ANA, name)
    assert stored is not None
    assert IMAGE[:20] not in stored


def test_images_that_were_not_kept(blobs: Blobs) -> None:
    """Reading and erasing images that do not exist is not an error, and no name leads outside the store."""
    archive = ImageArchive(blobs, SEAL)
    assert archive.read(ANA, name_at(NOW)) is None
    assert archive.read("issuer|../../etc", "passwd") is None
    assert (archive.erase(ANA), archive.erase("../x"), archive.measure()) == (0, 0, 0)


def test_erasing_an_owner(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """All images of an owner are erased, in several batches, and nobody else's."""
    monkeypatch.setattr("storage.images.archive._BATCH", 2)
    archive = ImageArchive(blobs, SEAL)
    for _ in range(5):
        archive.keep(ANA, name_at(NOW), IMAGE)
    archive.keep(BOB, name_at(NOW), IMAGE)
    assert archive.erase(ANA) == 5
    assert blobs.list_owners() == [BOB]


def test_removing_old_images(blobs: Blobs) -> None:
    """`remove_old` removes an owner's images of predictions before a time, and no others; `discard` removes one."""
    archive, young = ImageArchive(blobs, SEAL), name_at(NOW)
    for moment in (NOW - timedelta(days=9), NOW - timedelta(days=8)):
        archive.keep(ANA, name_at(moment), IMAGE)
    archive.keep(ANA, young, IMAGE)
    archive.keep(BOB, name_at(NOW - timedelta(days=9)), IMAGE)
    assert archive.remove_old(ANA, NOW - timedelta(days=7)) == 2
    assert (list(blobs.list(ANA)), len(list(blobs.list(BOB)))) == ([young], 1)
    archive.discard(ANA, young)
    assert list(blobs.list(ANA)) == []


def test_images_of_the_future_are_removed(blobs: Blobs) -> None:
    """Images whose ids a wrong clock made are removed, whatever their year; those of the last day are kept."""
    archive, now = ImageArchive(blobs, SEAL), datetime.now(UTC)
    kept = [name_at(now), name_at(now + timedelta(hours=1))]
    for name in (*kept, name_at(now + timedelta(days=4000)), "ffffffff-ffff-7fff-bfff-ffffffffffff"):
        archive.keep(ANA, name, IMAGE)
    assert archive.remove_old(ANA, now - timedelta(days=7)) == 2
    assert list(blobs.list(ANA)) == sorted(kept)


def test_a_folder_in_the_folder_of_an_owner(tmp_path: Path) -> None:
    """A folder that a file server adds does not prevent the removal of images."""
    archive = ImageArchive(open_blobs(f"file://{tmp_path}"), SEAL)
    archive.keep(ANA, name_at(NOW), IMAGE)
    (tmp_path / ANA / "@eaDir").mkdir()
    assert archive.erase(ANA) == 1
    assert os.listdir(tmp_path / ANA) == ["@eaDir"]


def test_long_lists_of_a_bucket(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing a bucket follows the pages that the service returns."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    for name, value in list_variables(aws).items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="long")
    blobs = open_blobs("s3://long?region=us-east-1")
    for _ in range(10):
        blobs.write(ANA, name_at(NOW), b"")
    assert len(list(blobs.list(ANA))) == 10
    assert ImageArchive(blobs, SEAL).erase(ANA) == 10


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_is_removed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    """An image is kept even if another process removes the owner's empty folder before the file is in it."""
    folder, name, mkdir = tmp_path / ANA, name_at(NOW), os.mkdir

    def mkdir_beside_a_removal(*args: Any) -> None:
        monkeypatch.undo()
        try:
            mkdir(*args)
        finally:
            folder.rmdir()

    if exists:
        folder.mkdir()
    monkeypatch.setattr(os, "mkdir", mkdir_beside_a_removal)
    archive = ImageArchive(open_blobs(f"file://{tmp_path}"), SEAL)
    archive.keep(ANA, name, IMAGE)
    assert archive.read(ANA, name) == IMAGE


def test_an_unusable_folder(tmp_path: Path) -> None:
    """Writing to a folder that cannot be used raises an error with the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(ImageStoreUnavailable, match="Not a directory"):
        open_blobs(f"file://{tmp_path}/file").write(ANA, name_at(NOW), b"")


def test_incomplete_files(tmp_path: Path) -> None:
    """An incomplete image cannot be read. Upkeep removes it after an hour: until then, it may still be written."""
    archive, now = ImageArchive(open_blobs(f"file://{tmp_path}"), SEAL), datetime.now(UTC)
    old, recent = name_at(now - timedelta(hours=2)), name_at(now)
    for name in (old, recent):
        archive.keep(ANA, name, IMAGE)
        (tmp_path / ANA / name).rename(tmp_path / ANA / f".{name}")
        assert archive.read(ANA, name) is None
    complete = name_at(now - timedelta(days=8))
    archive.keep(ANA, complete, IMAGE)
    assert archive.remove_old(ANA, now - timedelta(days=7)) == 2
    assert os.listdir(tmp_path / ANA) == [f".{recent}"]
    assert archive.erase(ANA) == 1


def test_an_unusable_bucket(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors for a missing bucket, an unreachable service and an invalid endpoint name the cause."""
    for name, value in list_variables(aws).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ImageStoreUnavailable, match="NoSuchBucket"):
        open_blobs("s3://absent?region=us-east-1").write(ANA, name_at(NOW), b"")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ImageStoreUnavailable, match="EndpointConnectionError"):
        open_blobs("s3://absent?region=us-east-1").list_owners()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "127.0.0.1:9")
    with pytest.raises(ImageStoreUnavailable, match="AWS_ENDPOINT_URL_S3"):
        open_blobs("s3://absent?region=us-east-1").list_owners()


def test_wrong_credentials_of_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors for a program or a file that gives no credentials have only the class of the failure."""
    (tmp_path / "config").write_text("[default]\ncredential_process = /bin/echo pa55word\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(ImageStoreUnavailable, match=r"cannot be used: JSONDecodeError\. Correct this"):
        open_blobs("s3://absent?region=us-east-1").write(ANA, name_at(NOW), b"")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/gateway")
    with pytest.raises(ImageStoreUnavailable, match=r"cannot be used: FileNotFoundError\. Correct this"):
        open_blobs("s3://absent?region=us-east-1").list_owners()


@pytest.mark.parametrize(
    ("printed", "kind"),
    [
        ('["pa55word"]', "AttributeError"),
        ('{"Version": 1, "AccessKeyId": ["pa55word"], "SecretAccessKey": 4711}', "TypeError|AttributeError"),
    ],
)
def test_credentials_of_another_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, kind: str) -> None:
    """A program whose JSON is not what botocore expects is an error with only the class of the failure."""
    (tmp_path / "printed").write_text(printed)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = /bin/cat {tmp_path}/printed\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(ImageStoreUnavailable, match=rf"cannot be used: ({kind})\. Correct this"):
        open_blobs("s3://absent?region=us-east-1").write(ANA, name_at(NOW), b"")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blobs]:
    """A bucket whose address is that of a server with the same page for every request."""
    with running(HTTPServer(("127.0.0.1", 0), _Page)) as server:
        for name, value in list_variables(f"http://127.0.0.1:{server.server_port}").items():
            monkeypatch.setenv(name, value)
        yield open_blobs("s3://kept?region=us-east-1")


class _Page(BaseHTTPRequestHandler):
    """Responds with a page of XHTML, which botocore parses as XML without any of the members that it looks for."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        body = b"<html><body>Log in to the network</body></html>"
        self.send_header("Content-Type", "application/xhtml+xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda blobs: blobs.write(ANA, name_at(NOW), b"image"), id="write"),
        pytest.param(lambda blobs: blobs.read(ANA, name_at(NOW)), id="read"),
        pytest.param(lambda blobs: blobs.list_owners(), id="list-owners"),
        pytest.param(lambda blobs: list(blobs.list(ANA)), id="list"),
        pytest.param(lambda blobs: blobs.measure(), id="measure"),
        pytest.param(lambda blobs: blobs.remove(ANA, [name_at(NOW)]), id="remove"),
    ],
)
def test_a_server_that_is_not_s3(page: Blobs, use: Callable[[Blobs], object]) -> None:
    """A page with the status 200, as the login page of a network, is an error for every operation on a bucket."""
    with pytest.raises(ImageStoreUnavailable, match="the response is not that of S3"):
        use(page)


def test_files_are_private(tmp_path: Path) -> None:
    """Only the gateway's user can read the folders and files."""
    name = name_at(NOW)
    open_blobs(f"file://{tmp_path}/images").write(ANA, name, b"")
    modes = [(tmp_path / "images" / part).stat().st_mode & 0o777 for part in (".", ANA, f"{ANA}/{name}")]
    assert modes == [0o700, 0o700, 0o600]
