"""What the owner of the database can try without the private key, alone or by what the gateway signs for everybody."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.chains.signing import Signer, Verifier, new_private_key
from monitoring.errors import LedgerDamaged
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import Draft, Link, written_time
from monitoring.ledger.erasure import Eraser
from monitoring.ledger.identity import Ids
from monitoring.ledger.records import Header, Line, checkpoints_in
from monitoring.ledger.retention import Pruning
from monitoring.ledger.store import LedgerStore
from monitoring.ledger.tables import (
    ledger_checkpoints,
    ledger_entries,
    ledger_heads,
    ledger_payloads,
    ledger_stumps,
)
from monitoring.ledger.verify import verify
from tests.monitoring.ledger.ledgers import KEY, LONG_AGO, NOW, checked, facts, fill, found, opened

WRITTEN_LONG_AGO = written_time(LONG_AGO)


@pytest.fixture
def url(engine: AsyncEngine, database_url: str) -> str:
    """A database with the tables."""
    assert engine.dialect.name in database_url
    return database_url


def change(url: str, *statements: Any) -> None:
    with opened(url) as engine, engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement) if isinstance(statement, str) else statement)


def forged(chain: Chain, count: int) -> list[Link]:
    ids = Ids()
    return chain.links([Draft(ids.new(), written_time(NOW), facts("ana")) for _ in range(count)])


def put(connection: Connection, links: list[Link]) -> None:
    for link in links:
        place = {"writer": link.entry.writer, "seq": link.entry.seq, "id": link.entry.id}
        connection.execute(insert(ledger_entries).values(**asdict(link.entry)))
        connection.execute(insert(ledger_payloads).values(**place, **asdict(link.payload)))


def test_a_chain_is_not_cut_back_under_a_later_checkpoint(url: str) -> None:
    """An older signed head put back, and named by the gateway's next checkpoint: no writer's number ever falls."""
    chain = fill(url, 3, NOW)
    with opened(url) as engine, engine.begin() as connection:
        (head,) = connection.execute(select(ledger_heads)).mappings().all()
        kept = dict(head)
    fill(url, 7, NOW + timedelta(seconds=1), chain=chain)
    fill(url, 4, NOW)
    anchor = checked(url).anchor
    later = [delete(table).where(table.c.writer == chain.writer, table.c.seq > 3) for table in KEPT]
    change(
        url, *later, update(ledger_heads).where(ledger_heads.c.writer == chain.writer).values(**kept | {"claimed": 2})
    )
    fill(url, 1, NOW)
    for noted in (None, anchor):
        assert f"names entry 3 of {chain.writer}, and one before it entry 10" in found(url, noted).problems[0]


KEPT = (ledger_entries, ledger_payloads)


def test_nothing_hides_below_the_first_number(url: str) -> None:
    """Whatever a reader could find is checked: a writer without a name, numbers below 1."""
    chain = fill(url, 3, NOW)
    with opened(url) as engine, engine.begin() as connection:
        put(connection, forged(Chain(""), 1))
    assert any("The chain of  " in problem for problem in found(url).problems)
    change(url, *(delete(table).where(table.c.writer == "") for table in KEPT))
    with opened(url) as engine, engine.begin() as connection:
        put(connection, forged(Chain(chain.writer, -8, "a" * 64), 2))
    assert any("entry -7" in problem for problem in found(url).problems)
    change(url, *(delete(table).where(table.c.seq < 1) for table in KEPT))
    nothing = dict.fromkeys(("at", "heads", "previous", "hash", "key", "signature"), "x")
    change(url, insert(ledger_checkpoints).values(number=0, **nothing))
    assert "Checkpoint 0 comes after checkpoint 0." in found(url).problems
    change(url, delete(ledger_checkpoints).where(ledger_checkpoints.c.number == 0))
    assert checked(url).entries == 3


def test_no_checkpoint_names_what_was_not_signed(url: str) -> None:
    """A head without a signature of ours is named by none: an export of an invented chain proves nothing."""
    fill(url, 3, NOW)
    invented = Chain(Ids().new())
    links = forged(invented, 2)
    last = links[-1].entry
    head = {"writer": invented.writer, "seq": 2, "hash": last.hash, "checkpoint": 1, "claimed": -1}
    change(url, insert(ledger_heads).values(**head, key=Signer(KEY).key_id, signature="x"))
    fill(url, 1, NOW)
    with opened(url) as engine, engine.begin() as connection:
        checkpoints = list(checkpoints_in(connection))
    assert not any(invented.writer in checkpoint.heads for checkpoint in checkpoints)
    window = [
        Header(since="2020", until="2030"),
        *checkpoints,
        *(Line(link.entry, link.payload, None) for link in links),
    ]
    (problem,) = verify(window, Verifier([Signer(KEY).public_key])).problems
    assert "has no signed end" in problem


def prune(url: str, before: datetime = NOW - timedelta(days=30), keys: tuple[str, ...] = ()) -> int:
    with opened(url) as engine:
        return sum(Pruning(engine, Signer(KEY), NOW, keys).prune(before))


def test_pruning_signs_no_entry_that_was_changed(url: str) -> None:
    """Entries that were made to look old stay, while what is old in other chains goes; the sentence names the first."""
    fill(url, 2, LONG_AGO)
    chain = fill(url, 10, NOW)
    changed = update(ledger_entries).where(ledger_entries.c.writer == chain.writer, ledger_entries.c.seq <= 7)
    change(url, changed.values(at=WRITTEN_LONG_AGO))
    with pytest.raises(LedgerDamaged, match=f"Entry 1 of {chain.writer} was changed, so it is left"):
        prune(url)
    finding = found(url)
    assert finding.entries == 10
    assert f"Entry 1 of {chain.writer}" in finding.problems[0]


def test_pruning_signs_no_checkpoint_that_was_changed(url: str) -> None:
    """Checkpoints that were made to look old and needless stay: they would have named a chain that is to vanish."""
    for _ in range(3):
        fill(url, 5, NOW)
    changed = update(ledger_checkpoints).values(at=WRITTEN_LONG_AGO)
    change(url, changed, update(ledger_heads).values(claimed=-5))
    with pytest.raises(LedgerDamaged, match="Checkpoint 1, or the one before it, was changed"):
        prune(url)
    with opened(url) as engine, engine.begin() as connection:
        assert len(list(checkpoints_in(connection))) == 6


def test_what_a_head_says_does_not_make_a_checkpoint_needless(url: str) -> None:
    """The last checkpoint that names an entry stays with it, whatever the unsigned note in the head says."""
    chain = fill(url, 5, LONG_AGO)
    fill(url, 5, LONG_AGO)
    first = update(ledger_entries).where(ledger_entries.c.writer == chain.writer, ledger_entries.c.seq == 1)
    change(url, first.values(at=written_time(LONG_AGO - timedelta(days=1))), update(ledger_heads).values(claimed=0))
    with pytest.raises(LedgerDamaged, match=f"Entry 1 of {chain.writer}"):
        prune(url)
    with opened(url) as engine, engine.begin() as connection:
        assert [checkpoint.number for checkpoint in checkpoints_in(connection)] == [2, 3, 4]


def test_pruning_believes_no_stump_of_others(url: str) -> None:
    """A stump that nobody known has signed hides no missing entries; with the key that signed it is one."""
    chain = fill(url, 4, LONG_AGO)
    fill(url, 4, LONG_AGO)
    assert prune(url, LONG_AGO + timedelta(seconds=1)) == 8
    fill(url, 4, LONG_AGO, chain=chain)
    change(url, update(ledger_stumps).where(ledger_stumps.c.writer == chain.writer).values(key="0" * 16))
    with pytest.raises(LedgerDamaged, match=f"The stump of {chain.writer} is signed by no known key"):
        prune(url)


def test_a_changed_key_is_told(url: str) -> None:
    """What an earlier key has signed is pruned once its public key is given."""
    fill(url, 4, LONG_AGO)
    fill(url, 1, NOW)
    with opened(url) as engine:
        newer = Signer(new_private_key())
        with pytest.raises(LedgerDamaged, match=r"Checkpoint 1 is signed by no known key \(--public-key"):
            list(Pruning(engine, newer, NOW).prune(NOW - timedelta(days=30)))
        assert found(url).checkpoints == 4
        assert list(Pruning(engine, newer, NOW, [Signer(KEY).public_key]).prune(NOW - timedelta(days=30))) == []
        with engine.begin() as connection:
            assert [checkpoint.number for checkpoint in checkpoints_in(connection)] == [3, 4]


def test_nobody_is_forgotten_in_anothers_name(url: str) -> None:
    """Payloads that were put under a name are not erased with those that are its own."""
    chain = fill(url, 6, NOW, "ana mallory")
    change(url, update(ledger_payloads).where(ledger_payloads.c.principal == "ana").values(principal="mallory"))
    with opened(url) as engine:
        parts = Eraser(engine, Signer(KEY), NOW).erase("mallory")
        assert next(parts) == 3
        with pytest.raises(LedgerDamaged, match=f"The payload of entry 1 of {chain.writer} was changed"):
            next(parts)
    finding = found(url)
    assert (finding.erased, len(finding.problems)) == (3, 3)


def test_no_payload_hides_from_its_erasure(url: str) -> None:
    """One without an id is found by its name like the others."""
    fill(url, 6, NOW, "ana mallory")
    change(url, update(ledger_payloads).where(ledger_payloads.c.seq == 1).values(id=""))
    with opened(url) as engine:
        assert sum(Eraser(engine, Signer(KEY), NOW).erase("ana")) == 3


def test_pruning_tells_of_a_chain_without_a_head(url: str) -> None:
    """Nothing of it is removed: nobody has signed where it ends."""
    chain = fill(url, 3, LONG_AGO)
    change(url, delete(ledger_heads).where(ledger_heads.c.writer == chain.writer))
    with pytest.raises(LedgerDamaged, match=f"The head of {chain.writer} is missing"):
        prune(url)
    assert found(url).entries == 3


def test_an_orderly_ledger_is_signed_on(url: str) -> None:
    """None of this keeps a checkpoint from naming what was signed and not named yet."""
    with opened(url) as engine:
        store, chain = LedgerStore(engine, Signer(KEY), lambda: NOW), Chain(Ids().new())
        store.open_chain(chain.writer)
        links = forged(chain, 2)
        with store.transaction() as connection:
            store.append(connection, links, chain)
        store.close()
    fill(url, 1, NOW)
    assert checked(url).checkpoints == 3
