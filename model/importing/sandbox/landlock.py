"""Restrict a process to some files and folders with Landlock (https://docs.kernel.org/userspace-api/landlock.html)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from model.errors import SandboxUnavailable
from model.importing.sandbox.kernel import check

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on all architectures
_GET_VERSION = 1
_PATH_BENEATH = 1
_OLDEST_VERSION = 2  # Linux 5.19; earlier ones cannot allow moving files between folders

_ABI_1_RIGHTS = (1 << 13) - 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE, _DEVICE_CONTROL = 1 << 13, 1 << 14, 1 << 15
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_FILE | _REFER | _TRUNCATE
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE
_ALL_NETWORK = 0b11  # bind and connect, from version 4 on
_ALL_SCOPES = 0b11  # abstract sockets and signals to other processes, from version 6 on


def restrict_files(libc: ctypes.CDLL, readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Deny access to all files except these paths and everything below them. Raises SandboxUnavailable."""
    version = int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_GET_VERSION)))
    if version < _OLDEST_VERSION:
        raise SandboxUnavailable(
            "This machine cannot confine the import, because its kernel has no Landlock. Use Linux 5.19 or later, and "
            "add landlock to the `lsm=` parameter of the kernel."
        )
    handled = _choose_rights(version)
    attributes = struct.pack("=3Q", handled, _ALL_NETWORK if version >= 4 else 0, _ALL_SCOPES if version >= 6 else 0)
    size = ctypes.c_size_t(24 if version >= 6 else 16 if version >= 4 else 8)
    ruleset = check(libc.syscall(_CREATE_RULESET, attributes, size, ctypes.c_uint32(0)), "landlock_create_ruleset")
    try:
        for path in readable:
            _allow(libc, ruleset, path, _READ & handled)
        for path in writable:
            _allow(libc, ruleset, path, _WRITE & handled)
        check(libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _choose_rights(version: int) -> int:
    rights = _ABI_1_RIGHTS | _REFER
    rights |= _TRUNCATE if version >= 3 else 0
    return rights | (_DEVICE_CONTROL if version >= 5 else 0)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """Add a rule for a path; a path that does not exist needs none."""
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", rights if path.is_dir() else rights & _OF_FILES, descriptor)
            arguments = (ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
            check(libc.syscall(_ADD_RULE, ruleset, *arguments), "landlock_add_rule")
        finally:
            os.close(descriptor)
