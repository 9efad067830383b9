"""Build predictions and labels as the gateway records them, and write them to a ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from monitoring.chains.ids import MonotonicIds, new_id
from monitoring.chains.signing import Signer
from monitoring.chains.timestamps import format_timestamp
from monitoring.cost.sums import add_cost_sums
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import EntryDraft, EntryKind, build_event
from monitoring.ledger.writing.store import LedgerStore
from monitoring.quality.following import SumUpdater
from monitoring.quality.sums import add_confidence_sums
from tests.monitoring.ledger.ledgers import KEY, open_database

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
REFUSED = {"v": 2, "principal": "ana", "status": 415, "code": "unsupported_image", "model": None, "output": None}


def build_prediction(
    confidence: float = 0.75, version: str = "1.0", reason: str | None = None, principal: str = "ana"
) -> dict[str, Any]:
    output = {
        "label": "forest",
        "confidence": confidence,
        "probabilities": {"forest": confidence, "river": 1 - confidence},
        "temperature": 1.0,
        "abstention": {"policy": "mark", "reason": reason},
    }
    model = {"name": "tiny", "version": version, "digest": "ab12", "backend": "stub"}
    return {"v": 2, "principal": principal, "status": 200, "code": None, "model": model, "output": output}


def build_timed(principal: str = "ana") -> dict[str, Any]:
    timing = {"queue": 90_000, "decode": 2000, "infer": 18_000}
    return build_prediction(principal=principal) | {"timing_us": timing, "image": {"bytes": 500}, "count": 1}


def build_label(
    prediction: str,
    label: str = "forest",
    at: datetime = AT,
    version: str = "1.0",
    *,
    abstained: bool = False,
    principal: str = "ana",
) -> dict[str, Any]:
    details = {
        "prediction": prediction,
        "predicted_at": format_timestamp(at),
        "predicted": "forest",
        "confidence": 0.75,
        "abstained": abstained,
        "label": label,
        "by": principal,
        "key": None,
        "request_id": "r",
    }
    return build_event(EntryKind.LABEL, principal, details, {"name": "tiny", "version": version})


def open_chain(url: str) -> Chain:
    """Begin a chain."""
    chain = Chain(new_id())
    with open_store(url) as store:
        store.open_chain(chain.writer)
    return chain


def append(url: str, facts: Sequence[dict[str, Any]], at: datetime = AT, chain: Chain | None = None) -> list[str]:
    """Append entries and a checkpoint to a chain, by default a new one; return the ids of the entries."""
    ids, chain = MonotonicIds(lambda: int(at.timestamp() * 1000)), chain or open_chain(url)
    linked = chain.link([EntryDraft(ids.new(), format_timestamp(at), each) for each in facts])
    with open_store(url) as store:
        with store.batch_transaction() as connection:
            store.append(connection, linked, chain)
        store.write_checkpoint()
    chain.advance(linked)
    return [item.entry.id for item in linked]


@contextmanager
def open_store(url: str) -> Iterator[LedgerStore]:
    with open_database(url) as engine:
        store = LedgerStore(engine, Signer(KEY), lambda: AT)
        yield store
        store.close()


def update_sums(engine: Engine) -> int:
    """Add the recorded entries to the sums of confidence and costs; return the number of transactions."""
    return sum(1 for _ in SumUpdater(engine, (add_confidence_sums, add_cost_sums)).update())
