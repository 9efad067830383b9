"""Format the results of one run as the page docs/generated/peers.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from bench.rounds import CONNECTIONS, Rounds, Value, median_ms, p99_ms, rate

ATALAYA, BARE = "Atalaya", "bare"


@dataclass(frozen=True, slots=True)
class Footprint:
    """A server's seconds until ready, and its megabytes of memory then and after the load."""

    ready_s: float
    rest_mb: float
    loaded_mb: float


@dataclass(frozen=True, slots=True)
class Run:
    """The results of one run. `versions` has the packages of each server."""

    rounds: Rounds
    footprints: Mapping[str, Footprint]
    versions: Mapping[str, str]
    machine: str
    commit: str
    date: str
    number_of_rounds: int
    seconds: float

    @property
    def servers(self) -> list[str]:
        return list(self.footprints)


_MEASURES: tuple[tuple[str, str, Value, bool], ...] = (
    ("Throughput", "predictions per second", rate, True),
    ("Median latency", "ms", median_ms, False),
    ("99th percentile of latency", "ms", p99_ms, False),
)

_TEMPLATE = Path(__file__).with_name("template.md")


def format_page(run: Run) -> str:
    """Return the page as Markdown."""
    conditions = (
        f"{run.machine}, commit {run.commit}, {run.date}. Rounds: {run.number_of_rounds}, with {run.seconds:g} s in"
        " each for every server and number of connections."
    )
    tables = [_format_measure(run, *measure) for measure in _MEASURES]
    results = "\n\n".join([conditions, *tables, _format_footprints(run), _format_failures(run)])
    wins = [
        f"- {peer}: {', '.join(names) or 'in none of these measurements'}." for peer, names in find_wins(run).items()
    ]
    versions = _format_table(["server", "packages"], run.versions.items())
    return Template(_TEMPLATE.read_text()).substitute(results=results, wins="\n".join(wins), versions=versions)


def find_wins(run: Run) -> dict[str, list[str]]:
    """Return, for each peer, the measurements in which it is better, such as "throughput at 4 connections"."""
    return {
        peer: [
            *_find_wins_under_load(run, peer),
            *_find_smaller_footprints(run.footprints[peer], run.footprints[ATALAYA]),
        ]
        for peer in run.servers
        if peer != ATALAYA
    }


def _find_wins_under_load(run: Run, peer: str) -> Iterator[str]:
    for title, _, value, more_is_better in _MEASURES:
        for connections in CONNECTIONS:
            own, other = (run.rounds.median(name, connections, value) for name in (ATALAYA, peer))
            if other > own if more_is_better else other < own:
                yield f"{title[0].lower()}{title[1:]} at {connections} connection{'s' * (connections > 1)}"


def _find_smaller_footprints(peer: Footprint, own: Footprint) -> Iterator[str]:
    if peer.ready_s < own.ready_s:
        yield "time until ready"
    if peer.rest_mb < own.rest_mb:
        yield "memory at rest"
    if peer.loaded_mb < own.loaded_mb:
        yield "memory after the load"


def _format_measure(run: Run, title: str, unit: str, value: Value, is_rate: bool) -> str:
    names = [*run.servers, BARE]
    rows = [
        [
            str(connections),
            *(f"{run.rounds.median(name, connections, value):.1f}" for name in names),
            *([f"{run.rounds.median_ratio(ATALAYA, BARE, connections):.2f}"] if is_rate else []),
        ]
        for connections in CONNECTIONS
    ]
    columns = ["connections", *names, *(["Atalaya / bare"] if is_rate else [])]
    return f"**{title}**, {unit}\n\n{_format_table(columns, rows)}"


def _format_footprints(run: Run) -> str:
    rows = [
        [name, f"{each.ready_s:.1f} s", f"{each.rest_mb:.0f} MB", f"{each.loaded_mb:.0f} MB"]
        for name, each in run.footprints.items()
    ]
    return _format_table(["server", "ready after", "memory at rest", "memory after the load"], rows)


def _format_failures(run: Run) -> str:
    failed = {name: sum(run.rounds.failed(name, connections) for connections in CONNECTIONS) for name in run.servers}
    return "Requests without a prediction: " + ", ".join(f"{name} {count}" for name, count in failed.items()) + "."


def _format_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(columns)
    alignment = ["---", *["---:"] * (len(columns) - 1)] if len(columns) > 2 else ["---"] * len(columns)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [columns, alignment, *rows])
