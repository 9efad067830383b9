"""A short run of the benchmark with the stub back end."""

from __future__ import annotations

import pytest

from bench.speed import BARE, GATEWAY, WITHOUT_LEDGER, format_table, list_targets, make_row, measure


def test_one_run_measures_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """One run measures all servers at 1, 4 and 16 connections, the process, and the latency at ten times capacity."""
    measurement = measure(0.2, 1, 1, 1, overload_s=4.0, model_url="stub://", starts=1)
    assert set(measurement.rounds.samples) == {
        (name, connections) for name in (BARE, GATEWAY, WITHOUT_LEDGER) for connections in (1, 4, 16)
    }
    assert all(measurement.rounds.failed(GATEWAY, connections) == 0 for connections in (1, 4, 16))
    assert measurement.start.ready_s > 0
    assert measurement.start.first_prediction_s > 0
    assert 20 < measurement.start.rest_mb <= measurement.loaded_mb * 1.5
    printed = capsys.readouterr().out
    assert all(line in printed for line in format_table(measurement.rounds))
    names = [target.name for target in list_targets(measurement)]
    assert names == [
        "ratio at 4 connections",
        "ratio at 16 connections",
        "added at one connection",
        "memory at rest",
        "ready",
        "first prediction",
        "latency at ten times capacity",
    ]
    assert make_row(measurement, 1).ratio_4 == measurement.rounds.median_ratio(GATEWAY, BARE, 4)
