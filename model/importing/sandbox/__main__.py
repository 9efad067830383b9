"""The confined process: give up all rights that the conversion does not need, then run its module."""

from __future__ import annotations

import errno
import json
import os
import resource
import runpy
import sys
from pathlib import Path
from typing import Any

from model.errors import ModelError
from model.importing.sandbox import Confinement, Limits
from model.importing.sandbox.kernel import drop_privileges, load_libc
from model.importing.sandbox.landlock import restrict_files
from model.importing.sandbox.outcome import OUT_OF_RESOURCES, UNAVAILABLE
from model.importing.sandbox.seccomp import deny_system_calls

# The paths that Python and TensorFlow read in addition to their installation.
_SYSTEM_PATHS = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"),
    *("/proc/self", "/sys/devices/system/cpu", "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"),
)


def main() -> None:
    """Run the module of a Confinement, which is passed as JSON in the only argument."""
    members: dict[str, Any] = json.loads(sys.argv[1])
    confinement = Confinement(**{**members, "limits": Limits(**members["limits"])})
    try:
        _confine(confinement)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    sys.argv = [confinement.module, confinement.argument]
    try:
        runpy.run_module(confinement.module, run_name="__main__", alter_sys=True)
    except MemoryError:
        os._exit(OUT_OF_RESOURCES)
    except OSError as error:
        if error.errno not in {errno.EFBIG, errno.EMFILE, errno.ENOMEM, errno.EDQUOT, errno.ENOSPC}:
            raise
        os._exit(OUT_OF_RESOURCES)


def _confine(confinement: Confinement) -> None:
    limits = confinement.limits
    libc = load_libc()
    for kind, limit in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    # At the soft limit, the process gets SIGXCPU, which tells it apart from one without memory. At the hard limit, it
    # gets SIGKILL.
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
    drop_privileges(libc)
    installation = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}
    readable = [*installation, *map(Path, _SYSTEM_PATHS), *map(Path, confinement.readable)]
    restrict_files(libc, readable, [Path(confinement.writable), Path("/dev/null")])
    deny_system_calls(libc)


if __name__ == "__main__":
    main()
