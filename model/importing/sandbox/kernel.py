"""Linux system calls for which Python has no function."""

from __future__ import annotations

import ctypes
import os
import platform

from model.errors import SandboxUnavailable

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION_3 = 0x20080522
_SIGKILL = 9


def load_libc() -> ctypes.CDLL:
    """Return the C library. Raises SandboxUnavailable on systems other than Linux."""
    if platform.system() != "Linux":
        raise SandboxUnavailable("Models are imported in a sandbox that needs Linux. Import them on a Linux machine.")
    return ctypes.CDLL(None, use_errno=True)


def drop_privileges(libc: ctypes.CDLL) -> None:
    """Give up all capabilities and the ability to gain any, and have the kernel kill this process with its parent."""
    control(libc, _PR_SET_PDEATHSIG, _SIGKILL)
    control(libc, _PR_SET_NO_NEW_PRIVS, 1)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def control(libc: ctypes.CDLL, option: int, *values: int | ctypes.c_void_p) -> None:
    """Call prctl. Raises SandboxUnavailable."""
    filled = [value if isinstance(value, ctypes.c_void_p) else ctypes.c_ulong(value) for value in values]
    check(libc.prctl(option, *filled, *[ctypes.c_ulong(0)] * (4 - len(filled))), f"prctl({option})")


def check(result: int, call: str) -> int:
    """Return the result of a call. Raises SandboxUnavailable if it failed."""
    if result < 0:
        reason = os.strerror(ctypes.get_errno())
        raise SandboxUnavailable(f"This machine cannot confine the import: {call} failed ({reason}). Use Linux 5.19.")
    return result
