"""What a process passes to the program that replaces it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

from api.server.successor import Inheritance

# Executes itself once, with its listener; the second program prints what it has inherited.
PROGRAM = """
import os, signal, socket, sys
from api.server.successor import INHERIT_OPTION, Inheritance, Successor, release_held_signals

if INHERIT_OPTION in sys.argv:
    inheritance = Inheritance.take_over(sys.argv[sys.argv.index(INHERIT_OPTION) + 1])
    (listener,) = inheritance.listeners["requests"]
    socket.create_connection(listener.getsockname())
    signal.signal(signal.SIGTERM, lambda *_: print("terminated"))
    release_held_signals()
    print(os.getpid(), inheritance.stuck_jobs, listener.getsockname()[1], listener.get_inheritable(), sys.argv[1:2])
    listener.accept()
else:
    listener = socket.create_server(("127.0.0.1", 0))
    print(os.getpid(), 3, listener.getsockname()[1], False, sys.argv[1:2], flush=True)
    successor = Successor({"requests": [listener], "metrics": []}, lambda: 3)
    successor.keep_listeners()
    listener.close()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)
    successor.start()
"""


def test_a_successor_has_the_same_id_and_listeners() -> None:
    """The new program keeps the process id, arguments, listener and count, and gets the signal that was held back."""
    command = [sys.executable, "-c", PROGRAM, "serve"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    first, *rest = ended.stdout.splitlines()
    assert sorted(rest) == sorted([first, "terminated"])


def test_listeners_are_taken_over_by_their_use() -> None:
    """Inherited descriptors become sockets, by use, that later child processes do not inherit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        passed = os.dup(listener.fileno())
        os.set_inheritable(passed, True)
        document = {"listeners": {"requests": [passed], "metrics": []}, "stuck_jobs": 2}
        inheritance = Inheritance.take_over(json.dumps(document))
        (taken,) = inheritance.listeners["requests"]
        assert (taken.getsockname(), taken.get_inheritable()) == (listener.getsockname(), False)
        assert (inheritance.listeners["metrics"], inheritance.stuck_jobs) == ([], 2)
        taken.close()
