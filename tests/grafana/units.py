"""Numbers as Grafana writes them in each of its units."""

from __future__ import annotations

import time

_DIVISORS = ((1e9, "B"), (1e6, "M"), (1e3, "K"))
_BINARY = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_TIMES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_RATES = {"reqps": "req/s", "ops": "ops/s", "cps": "c/s", "mps": "msg/s"}


def format_value(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{_trim(value * 100)}%"
    if unit == "bytes":
        return _scale(value, _BINARY, "B")
    if unit in ("s", "dtdurations"):
        return "0 s" if value == 0 else _scale(value, _TIMES, "s")
    if unit == "dateTimeFromNow":
        return f"{format_value(max(0.0, time.time() - value / 1000), 's')} ago"
    suffix = _RATES.get(unit, "")
    return f"{_scale(value, _DIVISORS, '').replace(' ', '')} {suffix}".strip()


def _scale(value: float, steps: tuple[tuple[float, str], ...], base: str) -> str:
    for size, name in steps:
        if abs(value) >= size:
            return f"{_trim(value / size)} {name}"
    return f"{_trim(value)} {base}".strip()


def _trim(value: float) -> str:
    """Three significant digits, without zeros at the end."""
    digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3
    text = f"{value:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
