"""Deny system calls with a seccomp filter (https://docs.kernel.org/userspace-api/seccomp_filter.html).

Calls fail with EPERM if they reach other processes, the network or the machine's configuration, or files in ways that
Landlock does not cover. New threads are allowed; new processes and programs are not.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping

from model.errors import SandboxUnavailable
from model.importing.sandbox.kernel import control

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _GREATER_OR_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in seccomp_data
_X32 = 0x40000000  # set in the numbers of x32 calls on x86-64
_CLONE_THREAD = 0x00010000
_SET_DUMPABLE = 4
_MAX_JUMP = 255

_X86_64: Mapping[str, int] = {"clone": 56, "clone3": 435, "tgkill": 234, "prctl": 157, "prlimit64": 302}
_ARM64: Mapping[str, int] = {"clone": 220, "clone3": 435, "tgkill": 131, "prctl": 167, "prlimit64": 261}
# The calls that always fail, with their numbers on x86-64 and ARM64.
_DENIED: Mapping[str, tuple[int | None, int | None]] = {
    # The network, and an interface that bypasses this filter.
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    # Processes.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "ptrace": (101, 117),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "setrlimit": (160, 164),
    "setpriority": (141, 140),
    "unshare": (272, 97),
    "setns": (308, 268),
    # Files in memory, to which only the limit on memory applies.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # Owners, modes, times and attributes of files, which Landlock does not cover; and opening files without a path.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "truncate": (76, 45),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "file_setattr": (469, 469),
    # Shared memory and queues of System V and POSIX.
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semctl": (66, 191),
    "semop": (65, 193),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    # File systems, keys, clocks, modules and other parts of the machine.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "iopl": (172, None),
    "ioperm": (173, None),
}


def deny_system_calls(libc: ctypes.CDLL) -> None:
    """Install the filter for this thread and the threads that it starts. Raises SandboxUnavailable."""
    code = _build_filter(platform.machine())
    instructions = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(code) // 8, ctypes.cast(instructions, ctypes.c_void_p))
    control(libc, _PR_SET_SECCOMP, _MODE_FILTER, ctypes.cast(ctypes.pointer(program), ctypes.c_void_p))


def _build_filter(machine: str) -> bytes:
    if machine == "x86_64":
        architecture, column, special = 0xC000003E, 0, _X86_64
    elif machine == "aarch64":
        architecture, column, special = 0xC00000B7, 1, _ARM64
    else:
        raise SandboxUnavailable(f"The sandbox does not know {machine} processors. Import on x86-64 or ARM64.")
    deny, allow, kill = _return(_ERROR | errno.EPERM), _return(_ALLOW), _return(_KILL)
    code = _load(_ARCHITECTURE) + _unless(_EQUAL, architecture, kill) + _load(_NUMBER)
    if machine == "x86_64":
        code += _when(_GREATER_OR_EQUAL, _X32, kill)
    for numbers in _DENIED.values():
        if numbers[column] is not None:
            code += _on_call(numbers[column] or 0, deny)
    # The C library then falls back to clone, whose flags the filter can examine.
    code += _on_call(special["clone3"], _return(_ERROR | errno.ENOSYS))
    # Only threads may be started, and a process may send signals only to itself.
    code += _on_call(special["clone"], _load(_ARGUMENTS) + _unless(_ANY_BIT, _CLONE_THREAD, deny) + allow)
    code += _on_call(special["tgkill"], _load(_ARGUMENTS) + _unless(_EQUAL, os.getpid(), deny) + allow)
    # Otherwise the watching process could not see this process's open files.
    code += _on_call(special["prctl"], _load(_ARGUMENTS) + _when(_EQUAL, _SET_DUMPABLE, deny) + allow)
    # The third argument of prlimit64 points to a new limit: it must be 0 in both halves.
    low = _load(_ARGUMENTS + 16) + _unless(_EQUAL, 0, deny)
    high = _load(_ARGUMENTS + 20) + _unless(_EQUAL, 0, deny)
    code += _on_call(special["prlimit64"], low + high + allow)
    return code + allow


def _on_call(number: int, action: bytes) -> bytes:
    """Run `action`, which must end the filter, if the system call in the accumulator has this number."""
    return _when(_EQUAL, number, action)


def _when(comparison: int, value: int, action: bytes) -> bytes:
    """Run `action` if the comparison of the accumulator with `value` is true."""
    return _instruction(comparison, value, 0, _measure_jump(action)) + action


def _unless(comparison: int, value: int, action: bytes) -> bytes:
    """Run `action` if the comparison of the accumulator with `value` is false."""
    return _instruction(comparison, value, _measure_jump(action), 0) + action


def _measure_jump(action: bytes) -> int:
    """Return the number of instructions to skip."""
    length = len(action) // 8
    if length > _MAX_JUMP:
        raise ValueError("the jump is too long")
    return length


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, offset, 0, 0)


def _return(value: int) -> bytes:
    return _instruction(_RETURN, value, 0, 0)


def _instruction(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
