"""The spool: a queue of texts that survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from monitoring.ledger.spool import Spool, SpoolFull, SpoolTaken, open_spools

MEGABYTE = 1_000_000

# Spools until it is killed, and says how far it has come.
PROGRAM = """
import sys
from pathlib import Path
from monitoring.ledger.spool import open_spools
(spool,) = open_spools(Path(sys.argv[1]), "w", 10_000_000)
for index in range(10**9):
    spool.append([f"{index} a", f"{index} b"])
    print(index, flush=True)
"""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    (spool,) = open_spools(tmp_path / "spool", "writer", MEGABYTE)
    yield spool
    spool.close()


def test_first_in_first_out(spool: Spool) -> None:
    """Texts come out in the order they went in, and stay until they are removed."""
    spool.append(["a", "b"])
    spool.append(["c"])
    assert spool.first(2) == ["a", "b"]
    spool.remove_first(1)
    assert (spool.first(10), spool.waiting) == (["b", "c"], 2)


def test_reopened(spool: Spool) -> None:
    """What waits in a spool that was closed is there when it is opened again; an empty one leaves no file."""
    spool.append(["a"])
    spool.close()
    again = Spool(spool.path, MEGABYTE)
    assert (again.first(10), again.waiting) == (["a"], 1)
    again.remove_first(1)
    again.close()
    assert list(spool.path.parent.glob("*.spool*")) == []


def test_full(spool: Spool) -> None:
    """Past its limit a batch is refused whole; what was there stays, and removing makes room again."""
    text = "x" * 1000
    with suppress(SpoolFull):
        while spool.waiting < 5000:
            spool.append([text] * 50)
    assert 500 <= spool.waiting <= 1000
    assert len(spool.first(10_000)) == spool.waiting
    spool.remove_first(100)
    spool.append([text] * 50)


def test_what_cannot_be_deleted_does_not_come_again(spool: Spool) -> None:
    """On a full disk texts that were removed stay in the file; they are out of the line, and go as soon as they can."""
    spool.append(["a", "b", "c", "d"])
    spool._connection.execute("CREATE TEMP TRIGGER stuck BEFORE DELETE ON waiting BEGIN SELECT RAISE(ABORT, ''); END")
    spool.remove_first(1)
    spool.remove_first(1)
    assert (spool.first(10), spool.waiting) == (["c", "d"], 2)
    spool._connection.execute("DROP TRIGGER stuck")
    spool.remove_first(1)
    assert (spool.first(10), spool.waiting) == (["d"], 1)
    assert spool._connection.execute("SELECT text FROM waiting").fetchall() == [("d",)]
    spool.remove_first(1)


def test_an_emptied_spool_begins_again(spool: Spool) -> None:
    """Where its own texts fill the disk nothing can be deleted: once all are delivered another file is begun."""
    spool.append([f"zebedee {index}" for index in range(500)])
    spool._connection.execute("CREATE TEMP TRIGGER stuck BEFORE DELETE ON waiting BEGIN SELECT RAISE(ABORT, ''); END")
    spool.remove_first(500)
    assert not any(b"zebedee" in path.read_bytes() for path in spool.path.parent.glob("*.spool*"))
    spool.append(["a"])
    assert (spool.first(10), spool.waiting) == (["a"], 1)
    with pytest.raises(SpoolTaken):
        Spool(spool.path, MEGABYTE)
    spool.remove_first(1)


def test_nothing_is_left_of_what_was_removed(spool: Spool) -> None:
    """A spool that was emptied holds no text any more, in no file; and these are its owner's alone."""
    spool.append([f"zebedee {index}" for index in range(500)])
    spool.remove_first(500)
    files = list(spool.path.parent.glob("*.spool*"))
    assert files
    assert not any(b"zebedee" in path.read_bytes() for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_starts_take_turns(tmp_path: Path) -> None:
    """Several who start at once never take each other's new file."""
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda index: open_spools(tmp_path, f"w{index}", MEGABYTE), range(40)))
    assert [[spool.path.stem for spool in spools] for spools in opened] == [[f"w{index}"] for index in range(40)]
    for (spool,) in opened:
        spool.close()


def test_room_is_tried_out(spool: Spool) -> None:
    """A spool says that it has room while it has, and holds nothing more for having been asked."""
    spool.append(["a"])
    assert spool.has_capacity()
    with suppress(SpoolFull):
        while spool.waiting < 5000:
            spool.append(["x" * 1000] * 10)
    assert not spool.has_capacity()
    spool.remove_first(spool.waiting - 1)
    assert spool.has_capacity()
    assert spool.first(10) == ["x" * 1000]


def test_trying_for_room_leaves_nothing_in_line(spool: Spool) -> None:
    """Whatever a try for room leaves behind when it is cut short, it is no text, and the next start forgets it."""
    spool._connection.execute("CREATE TRIGGER stop BEFORE DELETE ON room BEGIN SELECT RAISE(ABORT, 'no space'); END")
    spool.append(["a"])
    assert not spool.has_capacity()
    assert spool.first(10) == ["a"]
    spool._connection.execute("DROP TRIGGER stop")
    spool.close()
    again = Spool(spool.path, MEGABYTE)
    assert (again.first(10), again.waiting) == (["a"], 1)
    assert again._connection.execute("SELECT count(*) FROM room").fetchone() == (0,)
    again.remove_first(1)
    again.close()


def test_a_damaged_file_is_named(spool: Spool) -> None:
    """A file that is no spool is not overwritten: the error names it."""
    path = spool.path.with_name("damaged.spool")
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match=r"damaged\.spool cannot be used"):
        open_spools(path.parent, "another", MEGABYTE)
    assert path.read_bytes().startswith(b"no database")


def test_one_process_alone(spool: Spool) -> None:
    """While a spool is open nobody else can open it, and it does not count as left behind."""
    with pytest.raises(SpoolTaken):
        Spool(spool.path, MEGABYTE)
    (own,) = open_spools(spool.path.parent, "another", MEGABYTE)
    own.close()


def test_an_unusable_folder_is_named(tmp_path: Path) -> None:
    """Where no file can be made the error names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        open_spools(tmp_path / "file", "w", MEGABYTE)


def test_a_killed_process_leaves_all_it_spooled(tmp_path: Path) -> None:
    """Every batch that a process has spooled before it was killed is found by the next, whole and in order."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with process.stdout as lines:
        for line in lines:
            if int(line) >= 50:
                break
        os.kill(process.pid, signal.SIGKILL)
        told = [int(line) for line in lines] or [50]
    process.wait()
    spool, own = open_spools(tmp_path, "another", MEGABYTE)
    own.close()
    texts = spool.first(10**6)
    assert texts == [f"{index} {part}" for index in range(len(texts) // 2) for part in "ab"]
    assert len(texts) // 2 > told[-1]
    spool.close()
