"""Read from PromQL expressions what the rules for dashboards check; Prometheus itself validates the expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}(?:\[([^\]]*)\])?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_GROUPING = re.compile(r"\b(by|on|group_left)\s*\(([^)]*)\)")
_WORDS = {
    *("sum", "max", "min", "count", "topk", "rate", "increase", "max_over_time", "histogram_quantile", "label_replace"),
    *("time", "timestamp", "clamp_min", "by", "on", "group_left", "and", "or", "end", "bool"),
}


@dataclass(frozen=True)
class Selector:
    """A selected metric. `function` is what its range is passed to, and both are empty without a range."""

    metric: str
    matchers: dict[str, tuple[str, str]]
    range: str
    function: str


def list_selectors(expression: str) -> Iterator[Selector]:
    """Yield the selectors of an expression that have matchers."""
    for match in _SELECTOR.finditer(expression):
        name, matchers, window = match[1], match[2], match[3] or ""
        function = re.search(r"(\w+)\(\s*$", expression[: match.start()]) if window else None
        parsed = {label: (operator, value) for label, operator, value in _MATCHER.findall(matchers)}
        yield Selector(name, parsed, window, function[1] if function else "")


def find_selectors(expression: str) -> list[Selector]:
    """All selectors of an expression. Raises ValueError for a name without matchers that is not a known function."""
    found = list(list_selectors(expression))
    rest = _GROUPING.sub(r" \1 ", re.sub(r'"[^"]*"|\[[^\]]*\]', "", _SELECTOR.sub("", expression)))
    unknown = set(re.findall(r"[a-zA-Z_:][\w:]*", rest)) - _WORDS
    if unknown:
        raise ValueError(f"{sorted(unknown)} in {expression}")
    return found


def max_series(expression: str, values: dict[str, int]) -> int:
    """The most series that the expression can have. `values` has the number of values of each label that code bounds.

    Raises KeyError for a label that is not bounded, unless topk bounds the series.
    """
    zeros = 1 if "label_replace" in expression else 0
    ranked = re.search(r"topk\((\d+),", expression)
    if ranked:
        return int(ranked[1]) + zeros
    grouping = re.search(r"\bby \(([^)]*)\)", expression)
    product = 1
    for label in re.split(r",\s*", grouping[1]) if grouping else []:
        product *= 1 if label == "le" and "histogram_quantile" in expression else values[label]
    return product + zeros


def templates(dashboard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The variables of a dashboard by name."""
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}
