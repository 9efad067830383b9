"""Promotions and roll-backs: their checks, and the record of each decision that took effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model.errors import DigestMismatch
from model.registry.errors import AliasMoved, AliasUnchanged, InvalidName, MoveUnrecorded, UnknownAlias, UnknownVersion
from model.registry.files import FileRegistry
from model.registry.history import AliasHistory
from model.registry.moves import AliasMove, Change, parse_move
from model.registry.promotion import AliasMover
from model.signing.errors import ArtefactUnsigned, SignatureInvalid
from model.signing.folder import sign_folder
from tests.model.registry.crashes import FORK, run_until_crash
from tests.model.registry.versions import MODEL, write_version
from tests.model.signing.forging import new_key

WHO = "cli:olga"


class Record:
    """A ledger in a file, to which several processes append one line per move."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, _: str, move: AliasMove) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(move.as_dict()) + "\n")

    @property
    def moves(self) -> list[AliasMove]:
        """The recorded moves in order, without repetitions."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return list({move.id: move for move in map(parse_move, map(json.loads, lines))}.values())


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    """The versions 1.0, 1.1 and 1.2, none of them promoted."""
    registry = FileRegistry(tmp_path / "registry")
    for version in ("1.0", "1.1", "1.2"):
        registry.add(write_version(tmp_path, version))
    return registry


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "record")


@pytest.fixture
def mover(registry: FileRegistry, record: Record) -> AliasMover:
    return AliasMover(registry, record)


def test_a_promotion_keeps_the_previous_version(mover: AliasMover, record: Record) -> None:
    """Production and previous move together; the recorded move says who, why, from and to."""
    assert mover.promote(MODEL, "1.0", who=WHO, why="first") == {"production": Change(None, "1.0")}
    assert mover.registry.read(MODEL).aliases == {"production": "1.0"}
    changes = mover.promote(MODEL, "1.1", who="canary", why="better", expected="1.0")
    assert changes == {"production": Change("1.0", "1.1"), "previous": Change(None, "1.0")}
    state = mover.registry.read(MODEL)
    assert (state.aliases, state.unrecorded) == ({"production": "1.1", "previous": "1.0"}, ())
    first, second = record.moves
    assert (first.who, first.why, first.aliases) == (WHO, "first", {"production": Change(None, "1.0")})
    assert (second.who, second.why, second.aliases) == ("canary", "better", changes)
    assert second.at >= first.at


def test_a_roll_back_goes_to_the_previous_version_and_can_be_undone(mover: AliasMover) -> None:
    """A roll-back swaps production and previous, so that a second roll-back undoes it."""
    for version in ("1.0", "1.1"):
        mover.promote(MODEL, version, who=WHO, why="a test")
    for production, previous in (("1.0", "1.1"), ("1.1", "1.0")):
        mover.roll_back(MODEL, who=WHO, why="worse")
        assert mover.registry.read(MODEL).aliases == {"production": production, "previous": previous}


def test_a_second_roll_back_of_one_version_is_rejected(mover: AliasMover) -> None:
    """If two operators roll back the same version, the second roll-back is rejected and does not restore it."""
    for version in ("1.0", "1.1"):
        mover.promote(MODEL, version, who=WHO, why="a test")
    mover.roll_back(MODEL, who=WHO, why="worse", expected="1.1")
    with pytest.raises(AliasMoved):
        mover.roll_back(MODEL, who="cli:olga", why="worse", expected="1.1")
    assert mover.registry.read(MODEL).aliases["production"] == "1.0"


def test_an_alias_leaves_space_for_the_name_of_its_previous_version(mover: AliasMover) -> None:
    """An alias that is too long for the name of its previous version is rejected at the first promotion."""
    mover.promote(MODEL, "1.0", who=WHO, why="a test", alias="x" * 55)
    with pytest.raises(InvalidName):
        mover.promote(MODEL, "1.0", who=WHO, why="a test", alias="x" * 56)


def test_other_aliases_have_a_previous_of_their_own(mover: AliasMover) -> None:
    """Moving the candidate does not change the previous version of production; `@alias` can name a version."""
    mover.promote(MODEL, "1.0", who=WHO, why="a test")
    for version in ("1.1", "1.2"):
        mover.promote(MODEL, version, who=WHO, why="a test", alias="candidate")
    assert mover.registry.read(MODEL).aliases == {"production": "1.0", "candidate": "1.2", "candidate-previous": "1.1"}
    mover.promote(MODEL, "@candidate", who=WHO, why="it won")
    mover.remove(MODEL, "candidate", who=WHO, why="it won", expected="1.2")
    aliases = mover.registry.read(MODEL).aliases
    assert aliases == {"production": "1.2", "previous": "1.0", "candidate-previous": "1.1"}


def test_a_decision_that_would_change_nothing_is_rejected(mover: AliasMover, record: Record) -> None:
    """Each such decision raises its own error, and changes neither the registry nor the record."""
    mover.promote(MODEL, "1.0", who=WHO, why="a test")
    before, recorded = mover.registry.read(MODEL), record.moves
    refused: list[tuple[type[Exception], Callable[[], object]]] = [
        (AliasUnchanged, lambda: mover.promote(MODEL, "1.0", who=WHO, why="again")),
        (AliasUnchanged, lambda: mover.roll_back(MODEL, who=WHO, why="nothing before")),
        (AliasMoved, lambda: mover.promote(MODEL, "1.1", who=WHO, why="late", expected="1.2")),
        (AliasMoved, lambda: mover.remove(MODEL, "production", who=WHO, why="late", expected="1.2")),
        (UnknownVersion, lambda: mover.promote(MODEL, "9.9", who=WHO, why="unknown")),
        (UnknownAlias, lambda: mover.remove(MODEL, "candidate", who=WHO, why="unknown")),
    ]
    for error, decide in refused:
        with pytest.raises(error):
            decide()
    assert (mover.registry.read(MODEL), record.moves) == (before, recorded)


def test_a_damaged_version_is_not_promoted(mover: AliasMover) -> None:
    """The digest of each file is checked before an alias moves."""
    mover.promote(MODEL, "1.0", who=WHO, why="a test")
    (mover.registry.find_folder(MODEL, "1.1") / "model.onnx").write_bytes(b"A graph")
    with pytest.raises(DigestMismatch):
        mover.promote(MODEL, "1.1", who=WHO, why="damaged")
    assert mover.registry.read(MODEL).aliases == {"production": "1.0"}


def test_only_signed_versions_are_promoted_where_signatures_are_required(
    registry: FileRegistry, record: Record, tmp_path: Path
) -> None:
    """With a key, an alias moves neither to an unsigned version nor to one that another key has signed."""
    key, other = new_key(), new_key()
    for version, signer in (("2.0", other), ("2.1", key)):
        sign_folder(folder := write_version(tmp_path, version), signer)
        registry.add(folder)
    mover = AliasMover(registry, record, key.public_key())
    with pytest.raises(ArtefactUnsigned):
        mover.promote(MODEL, "1.0", who=WHO, why="unsigned")
    with pytest.raises(SignatureInvalid):
        mover.promote(MODEL, "2.0", who=WHO, why="other key")
    assert (registry.read(MODEL).aliases, record.moves) == ({}, [])
    mover.promote(MODEL, "2.1", who=WHO, why="signed")
    assert registry.read(MODEL).aliases == {"production": "2.1"}


def test_a_move_that_cannot_be_recorded_is_recorded_before_the_next(registry: FileRegistry, record: Record) -> None:
    """The error says that the alias has moved; no further move is made until this one can be recorded."""

    def fail(_: str, __: AliasMove) -> None:
        raise RuntimeError("the ledger is away")

    broken = AliasMover(registry, fail)
    with pytest.raises(MoveUnrecorded, match="the ledger is away"):
        broken.promote(MODEL, "1.0", who=WHO, why="first")
    assert registry.read(MODEL).aliases == {"production": "1.0"}
    with pytest.raises(RuntimeError, match="the ledger is away"):
        broken.promote(MODEL, "1.1", who=WHO, why="second")
    assert registry.read(MODEL).aliases == {"production": "1.0"}
    AliasMover(registry, record).promote(MODEL, "1.1", who=WHO, why="third")
    assert [move.why for move in record.moves] == ["first", "third"]


def _promote(root: Path, record: Record, version: str) -> None:
    AliasMover(FileRegistry(root), record).promote(MODEL, version, who=WHO, why=f"to {version}")


def test_a_crash_at_any_step_loses_neither_the_move_nor_its_record(tmp_path: Path) -> None:
    """Whenever a process is killed, the next one records the moves that took effect; record and registry agree."""
    source, outcomes = {name: write_version(tmp_path, name) for name in ("1.0", "1.1")}, set[tuple[int | None, bool]]()
    for step in range(24):
        root, record = tmp_path / f"registry-{step}", Record(tmp_path / f"record-{step}")
        registry = FileRegistry(root)
        for folder in source.values():
            registry.add(folder)
        _promote(root, record, "1.0")
        status = run_until_crash(step, lambda root=root, record=record: _promote(root, record, "1.1"))  # type: ignore[misc]
        AliasMover(registry, record).record_moves(MODEL)
        state = registry.read(MODEL)
        history = AliasHistory("production", record.moves)
        history.check_present(state.aliases["production"])
        assert (history.gaps, state.unrecorded) == ([], ())
        outcomes.add((status, state.aliases["production"] == "1.1"))
    assert outcomes == {(-9, False), (-9, True), (0, True)}


def _promote_often(root: Path, record: Record, version: str, other: str, count: int) -> None:
    mover = AliasMover(FileRegistry(root), record)
    made = 0
    while made < count:
        try:
            mover.promote(MODEL, version, who=version, why="a race")
            made += 1
        except (AliasMoved, AliasUnchanged):
            if mover.registry.read(MODEL).aliases["production"] == version:
                mover.registry.move_aliases(MODEL, {"production": other}, who=version, why="out of the way")


def test_two_processes_that_promote_at_once_leave_one_unbroken_record(registry: FileRegistry, tmp_path: Path) -> None:
    """When two processes promote at once, every move that takes effect is recorded, in order and without gaps."""
    record = Record(tmp_path / "record")
    root = tmp_path / "registry"
    _promote(root, record, "1.0")
    writers = [
        FORK.Process(target=_promote_often, args=(root, record, version, other, 15))
        for version, other in (("1.1", "1.0"), ("1.2", "1.0"))
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    AliasMover(registry, record).record_moves(MODEL)
    history = AliasHistory("production", record.moves)
    history.check_present(registry.read(MODEL).aliases["production"])
    assert history.gaps == []
    assert sum(move.why == "a race" for move in record.moves) == 30
