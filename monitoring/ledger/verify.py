"""Whether a ledger is as it was written: every entry, every statement, nothing missing, nothing added."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from monitoring.chains.signing import Verifier
from monitoring.ledger.entries import (
    CHECKPOINTS,
    GENESIS,
    Checkpoint,
    Claim,
    Entry,
    Erasure,
    Head,
    Stump,
    parse_claims,
    plain,
)
from monitoring.ledger.payloads import payload_problem
from monitoring.ledger.records import FORMAT, Cut, Header, Line, Orphan, Record

MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Anchor:
    """A checkpoint's number and hash, kept elsewhere since an earlier check."""

    number: int
    hash: str


@dataclass(slots=True)
class Finding:
    """How much was found good, and the sentences that say what is not: at most MOST_PROBLEMS of them."""

    header: Header = field(default_factory=Header)
    writers: int = 0
    entries: int = 0
    withheld: int = 0
    erased: int = 0
    checkpoints: int = 0
    anchor: Anchor = Anchor(0, GENESIS)
    problems: list[str] = field(default_factory=list)


def verify(records: Iterable[Record], verifier: Verifier, noted: Anchor | None = None) -> Finding:
    """Follow a stream to its end, in flat memory but for a line a writer.

    Whoever holds the private key could write another history, and whoever kept a copy could put it back: only an
    anchor, a checkpoint that was `noted` earlier, shows that.
    """
    walk = _Walk(verifier, noted)
    for record in records:
        walk.step(record)
        if len(walk.finding.problems) >= MOST_PROBLEMS:
            return walk.finding
    walk.end()
    return walk.finding


@dataclass(slots=True)
class _Place:
    """Where the walk stands in one chain."""

    writer: str = ""
    seq: int = 0
    hash: str = GENESIS
    id: str = ""
    begun: bool = False
    ended: bool = False
    claimed: bool = False  # the last entry is one that a checkpoint names


class _Walk:
    def __init__(self, verifier: Verifier, noted: Anchor | None) -> None:
        self.finding = Finding()
        self._verifier = verifier
        self._noted = noted
        self._anchor_met = noted == Anchor(0, GENESIS)
        self._number_met = False  # there is a checkpoint of that number, be it another
        self._claims: dict[str, deque[Claim]] = {}  # of each writer, those that are not reached yet
        self._checkpoint = _Place(CHECKPOINTS)
        self._place: _Place | None = None
        self._last_writer = ""
        self._begun = False
        self._pruned = 0  # the last checkpoint that was
        self._steps: dict[type, Callable[..., None]] = {
            Header: self._header,
            Stump: self._stump,
            Checkpoint: self._checkpoint_step,
            Cut: self._cut,
            Line: self._line,
            Head: self._head,
            Orphan: self._orphan,
        }

    def step(self, record: Record) -> None:
        if not self._begun and not isinstance(record, Header):
            self._wrong("The header is missing: what this is meant to hold cannot be known.")
        try:
            self._steps[type(record)](record)
        except (TypeError, ValueError, AttributeError):  # SQLite stores anything anywhere
            self._wrong(f"{_name_of(record)} cannot be read: a value is of another kind than it must be.")
        self._begun = True

    def end(self) -> None:
        if not self._begun:
            self._wrong("There is nothing in it, not even a header.")
        self._leave()
        # A chain begins under a checkpoint, and the newest one is never pruned.
        something = self.finding.writers or self._checkpoint.begun
        if something and not self.finding.checkpoints and not self.finding.header.cut:
            self._wrong(f"Checkpoint {self._checkpoint.seq + 1} is missing: there is none at all.")
        # The checkpoints of a cut export name more than it holds.
        for claims in self._claims.values() if not self.finding.header.cut else ():
            for claim in claims:
                self._wrong(f"Entry {claim.seq} of {plain(claim.writer)}, which a checkpoint names, is missing.")
        noted = self._noted
        if noted is not None and not self._anchor_met:
            self._wrong(f"Checkpoint {noted.number}, which was noted earlier, {self._why_not_met(noted)}.")

    def _why_not_met(self, noted: Anchor) -> str:
        if noted.number < self._pruned:
            return "was pruned: give a newer one"
        if self.finding.header.cut and not self._number_met:
            return "is not in this window: check the whole ledger against it"
        return "is not there any more, or is another"

    def _wrong(self, problem: str) -> None:
        if len(self.finding.problems) < MOST_PROBLEMS:
            self.finding.problems.append(problem[0].upper() + problem[1:])

    def _header(self, header: Header) -> None:
        if self._begun:
            self._wrong("A second header is in it: two ledgers, or two pieces of one, were put together.")
            return
        self.finding.header = header
        if header.format != FORMAT:
            self._wrong(f"The format {plain(header.format)} is unknown.")

    def _checkpoint_step(self, checkpoint: Checkpoint) -> None:
        place, name = self._checkpoint, f"Checkpoint {checkpoint.number}"
        self._before_all_chains(name)
        place.begun = True
        follows = checkpoint.number == place.seq + 1
        if checkpoint.number <= place.seq:
            self._wrong(f"{name} comes after checkpoint {place.seq}.")
        elif not follows and not self.finding.header.cut:
            self._wrong(f"Checkpoint {place.seq + 1} is missing: checkpoint {checkpoint.number} comes next.")
        elif follows and checkpoint.previous != place.hash:
            self._wrong(f"{name} does not follow checkpoint {place.seq}: one was replaced.")
        # One text must not be cut into fields in two ways.
        if "\n" in checkpoint.at + checkpoint.previous or checkpoint.hash != checkpoint.computed_hash():
            self._wrong(f"{name} was changed: its hash does not fit it.")
        self._signed(name, checkpoint.text(), checkpoint.key, checkpoint.signature)
        self._claim(name, checkpoint.heads)
        place.seq, place.hash = checkpoint.number, checkpoint.hash
        self.finding.checkpoints += 1
        self.finding.anchor = Anchor(checkpoint.number, checkpoint.hash)
        if self._noted is not None and self._noted.number == checkpoint.number:
            self._number_met = True
            self._anchor_met |= self._noted == self.finding.anchor

    def _before_all_chains(self, name: str) -> None:
        if self.finding.writers:
            self._wrong(f"{name} comes behind a chain: it belongs before all of them.")

    def _claim(self, name: str, heads: str) -> None:
        try:
            claims = parse_claims(heads)
        except ValueError:
            self._wrong(f"{name} cannot be read.")
            return
        for claim in claims:
            # Of a whole chain the last claim says it all; the pieces of a cut one end wherever there is one.
            kept = self._claims.setdefault(claim.writer, deque(maxlen=None if self.finding.header.cut else 1))
            if kept and claim.seq <= kept[-1].seq:
                self._wrong(
                    f"{name} names entry {claim.seq} of {plain(claim.writer)}, and one before it entry {kept[-1].seq}: "
                    "the chain was cut back."
                )
            kept.append(claim)

    def _stump(self, stump: Stump) -> None:
        name = f"The stump of {plain(stump.writer)}"
        self._signed(name, stump.text(), stump.key, stump.signature)
        if stump.writer == CHECKPOINTS:
            self._before_all_chains(name)
            if self._checkpoint.begun:
                self._wrong(f"{name} is there twice, or too late.")
            self._checkpoint.begun = True
            self._checkpoint.seq = self._pruned = stump.seq
            self._checkpoint.hash = stump.hash
            self.finding.anchor = Anchor(stump.seq, stump.hash)
            self._anchor_met |= self._noted == self.finding.anchor
        else:
            self._begin(stump.writer, stump.seq, stump.hash)

    def _cut(self, cut: Cut) -> None:
        if not self.finding.header.cut:
            self._wrong(f"The chain of {plain(cut.writer)} is cut, and the header does not say so.")
        self._begin(cut.writer, cut.seq, cut.hash)

    def _begin(self, writer: str, seq: int, digest: str) -> None:
        place = self._at(writer)
        if place.begun:
            self._wrong(f"The chain of {plain(writer)} begins twice.")
        place.seq, place.hash, place.begun = seq, digest, True
        self._check_claim(place)

    def _at(self, writer: str) -> _Place:
        """The place in the writer's chain, which may be a new one."""
        if self._place is None or self._place.writer != writer:
            self._leave()
            if writer <= self._last_writer:
                self._wrong(f"The chain of {plain(writer)} is there twice, or out of its order.")
            self._place, self._last_writer = _Place(writer), writer
            self.finding.writers += 1
        return self._place

    def _leave(self) -> None:
        """The chain is over: something signed must say where it ends."""
        place, self._place = self._place, None
        if place is not None and not place.ended and not (self.finding.header.cut and place.claimed):
            self._wrong(f"The chain of {plain(place.writer)} has no signed end: its head is missing, or it was added.")

    def _line(self, line: Line) -> None:
        entry = line.entry
        place = self._at(entry.writer)
        if place.ended:
            self._wrong(f"{_name(entry)} was added behind the head of its chain.")
        if entry.seq != place.seq + 1:
            self._wrong(f"Entry {place.seq + 1} of {plain(entry.writer)} is missing: entry {entry.seq} comes next.")
        elif entry.hash != entry.computed_hash(place.hash):
            self._wrong(f"{_name(entry)} was changed, or does not follow entry {place.seq}: its hash does not fit it.")
        if entry.id <= place.id:
            self._wrong(f"{_name(entry)} does not come after {plain(place.id)}: ids ascend.")
        place.seq, place.hash, place.id, place.begun = entry.seq, entry.hash, entry.id, True
        self._check_payload(line)
        self._check_claim(place)
        self.finding.entries += 1

    def _check_payload(self, line: Line) -> None:
        if line.erasure is not None:
            self._check_erasure(line, line.erasure)
        elif line.payload is None:
            self.finding.withheld += 1
            if not self.finding.header.withholds:
                self._wrong(f"The payload of {_name(line.entry)} is missing, and no erasure says why.")
        elif (problem := payload_problem(line.entry, line.payload)) is not None:
            self._wrong(f"The payload of {_name(line.entry)} {problem}.")

    def _check_erasure(self, line: Line, erasure: Erasure) -> None:
        self.finding.erased += 1
        name, text = _name(line.entry), erasure.text(line.entry.id, line.entry.commitment)
        self._signed(f"The erasure of {name}", text, erasure.key, erasure.signature)
        if line.payload is not None:
            self._wrong(f"{name} was erased, and has a payload again.")

    def _check_claim(self, place: _Place) -> None:
        claims = self._claims.get(place.writer, deque())
        while claims and claims[0].seq < place.seq:
            claims.popleft()
        place.claimed = bool(claims) and claims[0].seq == place.seq
        if place.claimed and claims.popleft().hash != place.hash:
            self._wrong(f"Entry {place.seq} of {plain(place.writer)} is not the one that a checkpoint names.")

    def _head(self, head: Head) -> None:
        place, name = self._at(head.writer), f"The head of {plain(head.writer)}"
        if not place.begun:
            self._check_claim(place)
        if place.ended:
            self._wrong(f"{name} is there twice.")
        place.ended = True
        self._signed(name, head.text(), head.key, head.signature)
        if head.seq > place.seq:
            self._wrong(f"Entry {place.seq + 1} of {plain(head.writer)} is missing: its chain ends with {head.seq}.")
        elif head.seq < place.seq:
            self._wrong(f"Entry {head.seq + 1} of {plain(head.writer)} was added: its chain ends with {head.seq}.")
        elif head.hash != place.hash:
            self._wrong(f"Entry {head.seq} of {plain(head.writer)} was replaced: the head names another hash.")
        if head.checkpoint > self._checkpoint.seq and not self.finding.header.cut:
            self._wrong(f"Checkpoint {self._checkpoint.seq + 1} is missing: {name} has seen {head.checkpoint}.")

    def _orphan(self, orphan: Orphan) -> None:
        if orphan.what == "claim":
            self._wrong(
                f"The head of {plain(orphan.writer)} holds {orphan.seq} as claimed, and the checkpoints do not."
            )
        else:
            self._wrong(f"A row ({orphan.what}) belongs to no entry: number {orphan.seq} of {plain(orphan.writer)}.")

    def _signed(self, name: str, text: str, key: str, signature: str) -> None:
        if not self._verifier.knows(key):
            self._wrong(f"{name} is signed by the unknown key {plain(key)}. Give its public key.")
        elif not self._verifier.holds(text, key, signature):
            self._wrong(f"{name} was changed: its signature does not fit it.")


def _name(entry: Entry) -> str:
    return f"entry {entry.seq} of {plain(entry.writer)} ({plain(entry.id)})"


def _name_of(record: Record) -> str:
    """A record whose fields may hold anything."""
    part = record.entry if isinstance(record, Line) else record
    names = [name for name in ("writer", "seq", "number", "id") if hasattr(part, name)]
    values = ", ".join(plain(f"{name} {getattr(part, name)}") for name in names)
    return f"A record ({type(part).__name__.lower()}: {values})"
