"""A sandbox for a process that can read the given files, write to one folder, and do nothing else.

The process confines itself before it imports the module that opens the file: with resource limits, without privileges,
with Landlock for files and seccomp for system calls. This is irreversible, needs no privileges and works inside
containers. It needs Linux 5.19 with Landlock, on x86-64 or ARM64.
"""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True):
    """The limits of one run; sizes are in bytes. `memory` is address space; TensorFlow reserves more than it uses."""

    memory: int = 12 << 30
    cpu_seconds: int = 7200
    wall_seconds: int = 7200
    file_bytes: int = 3 << 30
    folder_bytes: int = 8 << 30
    open_files: int = 512


class Confinement(Struct, frozen=True):
    """The settings of the child process, passed as JSON: the module to run with its argument, limits, and paths."""

    module: str
    argument: str
    limits: Limits
    readable: tuple[str, ...]
    writable: str
