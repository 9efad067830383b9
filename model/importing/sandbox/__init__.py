"""A process that can read what it is given, write to one folder, and do nothing else.

The process confines itself before it imports the module that opens the file: resource limits, no privileges, Landlock
for files, seccomp for system calls. All of it is irreversible, needs no privileges and works inside containers. It
needs Linux 5.19 with Landlock, on x86-64 or ARM64.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use. `memory` is address space, of which TensorFlow reserves more than it uses."""

    memory: int = 12 << 30
    cpu_seconds: int = 7200
    wall_seconds: int = 7200
    file_bytes: int = 3 << 30
    folder_bytes: int = 8 << 30
    open_files: int = 512


@dataclass(frozen=True, slots=True)
class Confinement:
    """What the child process gets as JSON: the module to run with its argument, the limits, and the paths."""

    module: str
    argument: str
    limits: Limits
    readable: tuple[str, ...]
    writable: str
