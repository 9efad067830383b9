"""PgBouncer in front of a PostgreSQL server, on a free port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port

# In transaction mode two server connections serve all clients, so that successive transactions of one client run on
# different ones. In session mode each client holds one for as long as it is connected.
_SERVER_CONNECTIONS = {"session": 30, "transaction": 2}
_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server_port} pool_size={pool_size}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
logfile = {folder}/log
"""


@contextmanager
def running(program: str, server_url: str, mode: str) -> Iterator[str]:
    """Run PgBouncer in front of `server_url` in `mode`, session or transaction; yield its URL without a database."""
    folder = Path(tempfile.mkdtemp(prefix="atalaya-pgbouncer-"))
    port = free_port()
    configuration = folder / "pgbouncer.ini"
    (folder / "users").write_text('"postgres" ""\n')
    configuration.write_text(
        _CONFIGURATION.format(
            server_port=urlsplit(server_url).port,
            pool_size=_SERVER_CONNECTIONS[mode],
            port=port,
            mode=mode,
            folder=folder,
        )
    )
    account = "postgres" if os.geteuid() == 0 else None  # PgBouncer refuses to run as root
    if account:
        shutil.chown(folder, account)
    process = subprocess.Popen([program, "--quiet", str(configuration)], cwd=folder, user=account)
    try:
        wait_until(lambda: _accepts(port), message="PgBouncer does not accept connections")
        yield f"postgresql://postgres@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        shutil.rmtree(folder)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
