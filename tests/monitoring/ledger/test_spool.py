"""The spool: a durable queue of texts."""

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

from monitoring.ledger.spool.folder import SpoolFolder
from monitoring.ledger.spool.queue import Spool, SpoolFull, SpoolInUse
from tests.monitoring.ledger.faults import REFUSE_DELETION, FaultySpool

MEGABYTE = 1_000_000

# Appends batches until it is killed, and prints the number of each.
PROGRAM = """
import sys
from pathlib import Path
from monitoring.ledger.spool.folder import SpoolFolder
(spool,) = SpoolFolder(Path(sys.argv[1]), 10_000_000).open("w")
for index in range(10**9):
    spool.append([f"{index} a", f"{index} b"])
    print(index, flush=True)
"""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[FaultySpool]:
    (tmp_path / "spool").mkdir()
    spool = FaultySpool(tmp_path / "spool" / "writer.spool", MEGABYTE)
    yield spool
    spool.close()


def test_first_in_first_out(spool: Spool) -> None:
    """Texts are read in the order in which they were appended, and stay until they are removed."""
    spool.append(["a", "b"])
    spool.append(["c"])
    assert spool.read_first(2) == ["a", "b"]
    assert spool.read_last() == "c"
    spool.remove_first(1)
    assert (spool.read_first(10), spool.waiting) == (["b", "c"], 2)


def test_closed_spools_can_be_reopened(spool: Spool) -> None:
    """A closed spool keeps its texts; an empty one leaves no file."""
    spool.append(["a"])
    spool.close()
    reopened = Spool(spool.path, MEGABYTE)
    assert (reopened.read_first(10), reopened.waiting) == (["a"], 1)
    reopened.remove_first(1)
    reopened.close()
    assert list(spool.path.parent.glob("*.spool*")) == []


def test_a_full_spool_rejects_whole_batches(spool: Spool) -> None:
    """Above the limit a batch is rejected as a whole; earlier texts stay, and removing them frees space."""
    text = "x" * 1000
    with suppress(SpoolFull):
        while spool.waiting < 5000:
            spool.append([text] * 50)
    assert 500 <= spool.waiting <= 1000
    assert len(spool.read_first(10_000)) == spool.waiting
    spool.remove_first(100)
    spool.append([text] * 50)


def test_removed_texts_that_cannot_be_deleted_are_skipped(spool: FaultySpool) -> None:
    """On a full disk, removed texts stay in the file; they are skipped, and deleted as soon as possible."""
    spool.append(["a", "b", "c", "d"])
    spool.execute(f"CREATE TEMP {REFUSE_DELETION}")
    spool.remove_first(1)
    spool.remove_first(1)
    assert (spool.read_first(10), spool.waiting) == (["c", "d"], 2)
    spool.execute("DROP TRIGGER stuck")
    spool.remove_first(1)
    assert (spool.read_first(10), spool.waiting) == (["d"], 1)
    assert spool.execute("SELECT text FROM waiting") == [("d",)]
    spool.remove_first(1)


def test_an_empty_spool_replaces_its_file(spool: FaultySpool) -> None:
    """When its own texts fill the disk, so that nothing can be deleted, the emptied spool starts a new file."""
    spool.append([f"zebedee {index}" for index in range(500)])
    spool.execute(f"CREATE TEMP {REFUSE_DELETION}")
    spool.remove_first(500)
    assert not any(b"zebedee" in path.read_bytes() for path in spool.path.parent.glob("*.spool*"))
    spool.append(["a"])
    assert (spool.read_first(10), spool.waiting) == (["a"], 1)
    with pytest.raises(SpoolInUse):
        Spool(spool.path, MEGABYTE)
    spool.remove_first(1)


def test_a_file_that_cannot_be_opened_is_opened_later(spool: FaultySpool) -> None:
    """A spool that cannot open its new file has no capacity until the file can be opened."""
    spool.append(["a"])
    spool.execute(f"CREATE TEMP {REFUSE_DELETION}")
    spool.cannot_connect = True
    spool.remove_first(1)
    assert not spool.has_capacity()
    with pytest.raises(SpoolFull):
        spool.append(["b"])
    spool.cannot_connect = False
    assert spool.has_capacity()
    spool.append(["c"])
    assert (spool.read_first(10), spool.waiting) == (["c"], 1)
    spool.remove_first(1)


def test_removed_texts_are_not_in_the_files(spool: Spool) -> None:
    """The files of an emptied spool contain none of its texts, and only their owner can read them."""
    spool.append([f"zebedee {index}" for index in range(500)])
    spool.remove_first(500)
    files = list(spool.path.parent.glob("*.spool*"))
    assert files
    assert not any(b"zebedee" in path.read_bytes() for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_concurrent_starts_take_turns(tmp_path: Path) -> None:
    """Concurrent starts never open each other's new file."""
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda index: SpoolFolder(tmp_path, MEGABYTE).open(f"w{index}"), range(40)))
    assert [[spool.path.stem for spool in spools] for spools in opened] == [[f"w{index}"] for index in range(40)]
    for (spool,) in opened:
        spool.close()


def test_capacity_is_probed(spool: Spool) -> None:
    """A spool has capacity until it is full, and probing its capacity leaves no text behind."""
    spool.append(["a"])
    assert spool.has_capacity()
    with suppress(SpoolFull):
        while spool.waiting < 5000:
            spool.append(["x" * 1000] * 10)
    assert not spool.has_capacity()
    spool.remove_first(spool.waiting - 1)
    assert spool.has_capacity()
    assert spool.read_first(10) == ["x" * 1000]


def test_an_interrupted_probe_adds_no_text(spool: FaultySpool) -> None:
    """Data that an interrupted probe leaves in the file does not appear in the queue; the next start deletes it."""
    spool.execute("CREATE TRIGGER stop BEFORE DELETE ON probe BEGIN SELECT RAISE(ABORT, 'no space'); END")
    spool.append(["a"])
    assert not spool.has_capacity()
    assert spool.read_first(10) == ["a"]
    spool.execute("DROP TRIGGER stop")
    spool.close()
    reopened = FaultySpool(spool.path, MEGABYTE)
    assert (reopened.read_first(10), reopened.waiting) == (["a"], 1)
    assert reopened.execute("SELECT count(*) FROM probe") == [(0,)]
    reopened.remove_first(1)
    reopened.close()


def test_a_spool_of_the_previous_release_is_opened(spool: FaultySpool) -> None:
    """A spool of release 0.1.0, which probed its capacity with the table `room`, keeps its texts but not that table."""
    spool.append(["a", "b"])
    spool.execute("DROP TABLE probe")
    spool.execute("CREATE TABLE room (place INTEGER PRIMARY KEY, text TEXT)")
    spool.execute("INSERT INTO room VALUES (1, 'left by an interrupted probe')")
    spool.close()
    reopened = FaultySpool(spool.path, MEGABYTE)
    assert (reopened.read_first(10), reopened.waiting) == (["a", "b"], 2)
    assert reopened.has_capacity()
    assert reopened.execute("SELECT name FROM sqlite_schema ORDER BY name") == [("probe",), ("waiting",)]
    reopened.remove_first(2)
    reopened.close()


def test_a_damaged_file_is_named(spool: Spool) -> None:
    """A file that is not a spool is not overwritten, and the error names it."""
    path = spool.path.with_name("damaged.spool")
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match=r"damaged\.spool cannot be used"):
        SpoolFolder(path.parent, MEGABYTE).open("another")
    assert path.read_bytes().startswith(b"no database")


def test_an_open_spool_is_locked(spool: Spool) -> None:
    """An open spool cannot be opened again, and does not count as left behind."""
    with pytest.raises(SpoolInUse):
        Spool(spool.path, MEGABYTE)
    (own,) = SpoolFolder(spool.path.parent, MEGABYTE).open("another")
    own.close()


def test_an_unusable_folder_is_named(tmp_path: Path) -> None:
    """The error names a folder in which no file can be created."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        SpoolFolder(tmp_path / "file", MEGABYTE).open("w")


def test_a_killed_process_leaves_all_it_spooled(tmp_path: Path) -> None:
    """Every batch that a killed process has spooled is found by the next one, complete and in order."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with process.stdout as lines:
        for line in lines:
            if int(line) >= 50:
                break
        os.kill(process.pid, signal.SIGKILL)
        spooled = [int(line) for line in lines] or [50]
    process.wait()
    spool, own = SpoolFolder(tmp_path, MEGABYTE).open("another")
    own.close()
    texts = spool.read_first(10**6)
    assert texts == [f"{index} {part}" for index in range(len(texts) // 2) for part in "ab"]
    assert len(texts) // 2 > spooled[-1]
    spool.close()
