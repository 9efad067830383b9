"""The frames of a backup: complete and unchanged, or rejected with the reason."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from storage.backups.errors import BackupDamaged, BackupTooNew, PassphraseWrong
from storage.backups.stream import BackupReader, BackupWriter

PASSPHRASE = "correct horse battery"
CONTENT = bytes(range(256)) * 10_000  # three frames


def write(passphrase: str | None) -> bytes:
    file = io.BytesIO()
    writer = BackupWriter(file, passphrase)
    for start in range(0, len(CONTENT), 70_000):
        writer.write(CONTENT[start : start + 70_000])
    writer.close()
    return file.getvalue()


@pytest.fixture(scope="module")
def files() -> dict[str | None, bytes]:
    """Backups by passphrase, one of them unencrypted."""
    return {passphrase: write(passphrase) for passphrase in (None, PASSPHRASE)}


def read(data: bytes, passphrase: str | None) -> bytes:
    reader = BackupReader(io.BytesIO(data), passphrase)
    content = b""
    while part := reader.read(100_000):
        content += part
    reader.finish()
    return content


both = pytest.mark.parametrize("passphrase", [None, PASSPHRASE])


@both
def test_the_content_is_returned(files: dict[str | None, bytes], passphrase: str | None) -> None:
    """A backup returns its content, with and without encryption; an encrypted file does not show the content."""
    assert read(files[passphrase], passphrase) == CONTENT
    assert (CONTENT[:64] in files[passphrase]) is (passphrase is None)


def change(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@both
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_a_changed_byte_is_found(files: dict[str | None, bytes], passphrase: str | None, share: float) -> None:
    """A changed byte in any frame is found, the last byte of the file included."""
    data = files[passphrase]
    with pytest.raises(BackupDamaged, match="changed or damaged"):
        read(change(data, int(share * (len(data) - 1))), passphrase)


@both
@pytest.mark.parametrize("missing", [1, 600_000, 1_100_000, 2_500_000])
def test_a_missing_end_is_found(files: dict[str | None, bytes], passphrase: str | None, missing: int) -> None:
    """A file that ends within a frame is reported as incomplete, whichever frame that is."""
    with pytest.raises(BackupDamaged, match="incomplete"):
        read(files[passphrase][:-missing], passphrase)


def find_frames(data: bytes) -> list[int]:
    """Return where each frame begins, and where the last one ends."""
    position = data.index(b"\n") + 1
    position += 0 if b"null" in data[:position] else 16
    positions = [position]
    while position < len(data):
        position += 5 + int.from_bytes(data[position : position + 4], "big")
        positions.append(position)
    return positions


@both
def test_a_file_that_ends_between_two_frames_is_incomplete(
    files: dict[str | None, bytes], passphrase: str | None
) -> None:
    """A file that ends where a frame begins is reported as incomplete, although each of its frames is intact."""
    data = files[passphrase]
    *starts, end = find_frames(data)
    assert (len(starts), end) == (3, len(data))
    for start in starts:
        with pytest.raises(BackupDamaged, match="incomplete"):
            read(data[:start], passphrase)


def swap_frames(data: bytes) -> bytes:
    """Exchange the first two frames, which have the same length."""
    first, second, third, _ = find_frames(data)
    return data[:first] + data[second:third] + data[first:second] + data[third:]


def append_byte(data: bytes) -> bytes:
    return data + b"x"


@both
@pytest.mark.parametrize("edit", [append_byte, swap_frames])
def test_frames_keep_their_order(
    files: dict[str | None, bytes], passphrase: str | None, edit: Callable[[bytes], bytes]
) -> None:
    """Bytes after the end, and frames in another order, are found."""
    with pytest.raises(BackupDamaged, match="changed or damaged"):
        read(edit(files[passphrase]), passphrase)


@pytest.mark.parametrize(
    ("made_with", "read_with", "message"),
    [
        (PASSPHRASE, "correct horse batterz", "passphrase is wrong"),
        (PASSPHRASE, None, "is encrypted"),
        (None, PASSPHRASE, "is not encrypted"),
    ],
)
def test_a_wrong_passphrase_is_no_damage(
    files: dict[str | None, bytes], made_with: str | None, read_with: str | None, message: str
) -> None:
    """A passphrase that is wrong, missing or superfluous is reported as such."""
    with pytest.raises(PassphraseWrong, match=message):
        read(files[made_with], read_with)


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", b"[]\n", b'{"atalaya_backup": 1, "salt": "zz"}\n'])
def test_another_file_is_no_backup(data: bytes) -> None:
    """A file that is not a backup is reported as such."""
    with pytest.raises(BackupDamaged, match="not a backup"):
        read(data, None)


def test_a_newer_format_is_named(files: dict[str | None, bytes]) -> None:
    """The error for a backup in a later format names a newer release."""
    with pytest.raises(BackupTooNew, match="newer release"):
        read(files[None].replace(b'"atalaya_backup": 1', b'"atalaya_backup": 2', 1), None)
