r"""The format of a backup file: a header line, and then the content in frames, each with its own seal.

    {"atalaya_backup": 1, "salt": "…" or null}\n
    16 bytes to check the passphrase, if the content is encrypted
    frames: 4 bytes with the length, 1 byte that is 1 in the last frame, and the sealed bytes

A seal covers the header, the frame number, and whether the frame is the last. The reader therefore detects frames that
were changed, moved, removed or appended, and a truncated file.
"""

from __future__ import annotations

import hmac
import json
import os
from typing import BinaryIO

from storage.backups.errors import BackupDamaged, BackupTooNew, PassphraseWrong
from storage.backups.sealing import CHECK_BYTES, SALT_BYTES, Checksum, Encryption, Seal, SealBroken

FORMAT = 1

_FRAME_BYTES = 1 << 20
_HEADER_LIMIT = 4096
_NAME = "atalaya_backup"

_NO_BACKUP = "The file is not a backup made by `atalaya backup`."
_INCOMPLETE = "The backup is incomplete: its end is missing. Use another one."
_CHANGED = "The backup was changed or damaged after it was made. Use another one."


class BackupWriter:
    """Writes data to a file in frames. `close` writes the last frame and leaves the file open."""

    def __init__(self, file: BinaryIO, passphrase: str | None = None) -> None:
        self._file = file
        salt = os.urandom(SALT_BYTES) if passphrase is not None else None
        self._header = json.dumps({_NAME: FORMAT, "salt": salt and salt.hex()}).encode() + b"\n"
        file.write(self._header)
        self._seal: Seal = Checksum()
        if passphrase is not None and salt is not None:
            encryption = Encryption(passphrase, salt)
            file.write(encryption.make_check(self._header))
            self._seal = encryption
        self._number = 0
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        self._waiting += data
        while len(self._waiting) > _FRAME_BYTES:  # `close` writes the last frame
            self._write_frame(bytes(self._waiting[:_FRAME_BYTES]), last=False)
            del self._waiting[:_FRAME_BYTES]
        return len(data)

    def close(self) -> None:
        self._write_frame(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _write_frame(self, data: bytes, *, last: bool) -> None:
        flag = bytes([last])
        sealed = self._seal.seal(self._number, self._header + flag, data)
        self._file.write(len(sealed).to_bytes(4, "big") + flag + sealed)
        self._number += 1


class BackupReader:
    """Reads a file that BackupWriter wrote. `read` returns only data whose seal is intact.

    The constructor raises BackupDamaged, BackupTooNew and PassphraseWrong; `read` and `finish` raise BackupDamaged.
    """

    def __init__(self, file: BinaryIO, passphrase: str | None = None) -> None:
        self._file = file
        self._header = file.readline(_HEADER_LIMIT)
        salt = _read_salt(self._header)
        if salt is None and passphrase is not None:
            raise PassphraseWrong("The backup is not encrypted. Restore it without a passphrase.")
        if salt is not None and passphrase is None:
            raise PassphraseWrong("The backup is encrypted. Give its passphrase with --passphrase-file.")
        self._seal: Seal = Checksum()
        if salt is not None and passphrase is not None:
            encryption = Encryption(passphrase, salt)
            if not hmac.compare_digest(encryption.make_check(self._header), file.read(CHECK_BYTES)):
                raise PassphraseWrong("The passphrase is wrong, or the beginning of the backup was changed.")
            self._seal = encryption
        self._number = 0
        self._ended = False
        self._waiting = bytearray()

    def read(self, size: int) -> bytes:
        """Return `size` bytes, or fewer at the end."""
        while len(self._waiting) < size and not self._ended:
            self._waiting += self._read_frame()
        data = bytes(self._waiting[:size])
        del self._waiting[:size]
        return data

    def finish(self) -> None:
        """Check that the file is complete and that nothing follows its last frame."""
        while not self._ended:
            self._read_frame()
        if self._file.read(1):
            raise BackupDamaged(_CHANGED)

    def _read_frame(self) -> bytes:
        head = self._file.read(5)
        length = int.from_bytes(head[:4], "big")
        if len(head) == 5 and length > _FRAME_BYTES + self._seal.overhead:
            raise BackupDamaged(_CHANGED)
        sealed = self._file.read(length)
        if len(head) < 5 or len(sealed) < length:
            raise BackupDamaged(_INCOMPLETE)
        try:
            data = self._seal.unseal(self._number, self._header + head[4:], sealed)
        except SealBroken:
            raise BackupDamaged(_CHANGED) from None
        self._number += 1
        self._ended = head[4] == 1
        return data


def _read_salt(header: bytes) -> bytes | None:
    """Return the salt of an encrypted backup, or None if it is not encrypted. Raises BackupDamaged, BackupTooNew."""
    try:
        document = json.loads(header)
        version, salt = document[_NAME], document["salt"]
        decoded = None if salt is None else bytes.fromhex(salt)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BackupDamaged(_NO_BACKUP) from None
    if not isinstance(version, int) or (decoded is not None and len(decoded) != SALT_BYTES):
        raise BackupDamaged(_NO_BACKUP)
    if version > FORMAT:
        raise BackupTooNew("A newer release made this backup. Restore it with that release.")
    return decoded
