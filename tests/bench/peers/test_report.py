"""The page docs/generated/peers.md."""

from __future__ import annotations

from bench.peers.report import ATALAYA, BARE, Footprint, Run, find_wins, format_page
from tests.bench.samples import make_rounds

FOOTPRINTS = {
    ATALAYA: Footprint(1.0, 190, 210),
    "LitServe": Footprint(5.0, 400, 450),
    "BentoML": Footprint(7.0, 150, 500),
}
RATES = {ATALAYA: [50.0, 25.0], "LitServe": [40.0, 20.0], "BentoML": [30.0, 15.0], BARE: [100.0, 50.0]}


def make_run(rates: dict[str, list[float]]) -> Run:
    versions = dict.fromkeys(FOOTPRINTS, "onnxruntime 1.0")
    return Run(make_rounds(rates), FOOTPRINTS, versions, "2 x Some CPU", "0123abc", "2026-11-26", 2, 4.0)


def test_the_page_has_every_measurement() -> None:
    """The page has a row for each number of connections with the medians of every server and the ratio to bare."""
    page = format_page(make_run(RATES))
    assert "2 x Some CPU, commit 0123abc, 2026-11-26. Rounds: 2, with 4 s in each" in page
    for connections in (1, 4, 16):
        assert f"| {connections} | 37.5 | 30.0 | 22.5 | 75.0 | 0.50 |" in page
        assert f"| {connections} | 30.0 | 37.5 | 50.0 | 15.0 |" in page
    assert "| BentoML | 7.0 s | 150 MB | 500 MB |" in page
    assert "Requests without a prediction: Atalaya 0, LitServe 0, BentoML 0." in page
    assert "| LitServe | onnxruntime 1.0 |" in page
    assert "$" not in page


def test_the_page_says_where_a_peer_is_better() -> None:
    """Each measurement in which a peer is better than the gateway is named, and so is a peer that is never better."""
    assert find_wins(make_run(RATES)) == {"LitServe": [], "BentoML": ["memory at rest"]}
    page = format_page(make_run(RATES))
    assert "- LitServe: in none of these measurements.\n- BentoML: memory at rest." in page
    faster = find_wins(make_run({**RATES, "LitServe": [60.0, 30.0]}))["LitServe"]
    assert faster == [
        f"{name} at {connections}"
        for name in ("throughput", "median latency", "99th percentile of latency")
        for connections in ("1 connection", "4 connections", "16 connections")
    ]
