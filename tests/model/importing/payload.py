"""A program for the sandbox: attempts the action that its argument names, and reports the result."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

Attempt = Callable[[str], object]


def allocate(size: str) -> None:
    bytearray(int(size))


def spin(_: str) -> None:
    while True:
        pass


def write_large_file(size: str) -> None:
    with Path("large").open("wb") as file:
        file.truncate(int(size))


def write_many_files(count: str) -> None:
    for index in range(int(count)):
        Path(f"file{index}").write_bytes(bytes(1 << 20))


def write_unlinked_files(count: str) -> None:
    """Write files that are already unlinked, and wait to be killed."""
    for _ in range(int(count)):
        descriptor = os.open("unlinked", os.O_WRONLY | os.O_CREAT)
        os.unlink("unlinked")
        os.write(descriptor, bytes(15 << 20))
    threading.Event().wait()


def open_many_files(count: str) -> None:
    for _ in range(int(count)):
        os.open("/dev/null", os.O_RDONLY)


def fork(_: str) -> None:
    if os.fork() == 0:
        sys.exit()


def run_program(_: str) -> None:
    subprocess.run(["/bin/true"], check=True)


def replace_program(_: str) -> None:
    os.execv("/bin/true", ["true"])  # noqa: S606


def start_thread(_: str) -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def connect(port: str) -> None:
    socket.create_connection(("127.0.0.1", int(port)))


def open_unix_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def read(path: str) -> None:
    Path(path).read_bytes()


def list_folder(path: str) -> None:
    os.listdir(path)


def write(path: str) -> None:
    Path(path).write_text("written")


def overwrite(path: str) -> None:
    os.truncate(path, 0)


def make_symlink(path: str) -> None:
    Path("link").symlink_to(path)


def change_mode(path: str) -> None:
    Path(path).chmod(0)


def move_out(path: str) -> None:
    Path("mine").write_text("mine")
    Path("mine").rename(path)


def signal_process(pid: str) -> None:
    os.kill(int(pid), signal.SIGTERM)


def raise_limit(_: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    unlimited = (ctypes.c_uint64 * 2)(2**64 - 1, 2**64 - 1)
    if libc.prlimit64(0, resource.RLIMIT_AS, unlimited, None) < 0:
        raise OSError(ctypes.get_errno(), "prlimit64")


def read_environment(pid: str) -> None:
    Path(f"/proc/{pid}/environ").read_bytes()


def make_io_uring(_: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(425, 8, (ctypes.c_uint32 * 30)()) < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")


def make_memory_file(_: str) -> None:
    os.memfd_create("file")


def hide_descriptors(_: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(4, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "prctl")


def check_environment(secret: str) -> None:
    """Fail if a variable holds the secret."""
    assert os.environ
    assert not [name for name, value in os.environ.items() if secret in value]


def write_in_own_folder(_: str) -> None:
    Path("folder").mkdir()
    Path("folder/file").write_text("written")
    Path("folder/file").rename("moved")


def fail(message: str) -> None:
    sys.exit(f"error: {message}")


def report(arguments: str) -> None:
    """Call each function of a JSON object with its argument, and write the name of its error, or "done"."""
    outcomes = {}
    for name, argument in json.loads(arguments).items():
        attempt: Attempt = globals()[name.partition(" ")[0]]
        try:
            attempt(argument)
        except Exception as error:  # whatever it is, the test compares it
            outcomes[name] = type(error).__name__
        else:
            outcomes[name] = "done"
    Path("outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    chosen, _, value = sys.argv[1].partition("=")
    globals()[chosen](value)
