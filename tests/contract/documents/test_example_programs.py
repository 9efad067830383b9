"""The programs in examples/: usage, and Ctrl-C."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S

EXAMPLES = ROOT / "examples"
# There is no terminal here: the password comes from standard input.
CLIENT = """
import getpass, runpy, sys

getpass.getpass = sys.stdin.readline
runpy.run_path(sys.argv.pop(1))
"""
# The receiver listens on any free port, and prints when it is ready.
RECEIVER = """
import http.server, runpy, sys

class Server(http.server.ThreadingHTTPServer):
    def __init__(self, address, handler):
        super().__init__((address[0], 0), handler)

    def serve_forever(self):
        print("ready", flush=True)
        super().serve_forever()

http.server.ThreadingHTTPServer = Server
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Press Ctrl-C, and return the exit status and what the process writes to standard error."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, errors


def test_the_client_ends_quietly_when_interrupted() -> None:
    """Ctrl-C while the client waits for a gateway ends it with exit status 130 and without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = start(CLIENT, str(EXAMPLES / "client.py"), url, "ana", "image.jpg")
        assert client.stdin is not None
        client.stdin.write("a password\n")
        client.stdin.flush()
        silent.settimeout(PATIENCE_S)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1)
            assert interrupt(client) == (130, "")


def test_the_client_shows_its_usage() -> None:
    """A client without an image to send prints how to call it."""
    client = start(CLIENT, str(EXAMPLES / "client.py"), "http://127.0.0.1:1", "ana")
    _, errors = client.communicate(timeout=PATIENCE_S)
    assert client.returncode == 1
    assert errors.startswith("Send images to an Atalaya gateway: python client.py URL USER IMAGE")


def test_the_receiver_of_alerts_ends_quietly_when_interrupted() -> None:
    """Ctrl-C ends the receiver of alerts with exit status 130 and without a traceback."""
    receiver = start(RECEIVER, str(EXAMPLES / "alert_receiver.py"))
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "ready\n"
    assert interrupt(receiver) == (130, "")
