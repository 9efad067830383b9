"""A dashboard as a web page, drawn from Prometheus' results.

This does not use Grafana: it draws what a dashboard's JSON says (queries, layout, units, colours, thresholds, texts)
with its own charts, so that the documentation can show real data where Grafana is not available.
"""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape
from typing import Any

from tests.grafana.boards import Window, read_dashboard
from tests.grafana.drawing import COLORS, PALETTE, Line, Scale, draw_heat, draw_lines, draw_states
from tests.grafana.prometheus import Prometheus, Series
from tests.grafana.units import format_value

Panel = dict[str, Any]

WIDTH = 1560
_COLUMN, _ROW, _GAP = WIDTH / 24, 38, 8
_LEGEND_LINE = 18
_LEGEND_LINES = 5
_STYLE = """
body { margin: 0; background: #111217; color: #ccccdc; font: 13px Inter, "DejaVu Sans", sans-serif; }
h1 { font-size: 20px; margin: 12px 16px 2px; }
p.about { margin: 0 16px 10px; color: #9fa7b3; }
main { position: relative; margin: 0 8px; }
section { position: absolute; box-sizing: border-box; overflow: hidden; padding: 6px 8px; }
section { background: #181b1f; border: 1px solid #24282d; }
h2 { font-size: 13px; margin: 0 0 4px; font-weight: 600; }
h3 { position: absolute; margin: 6px 4px; font-size: 15px; }
table { border-collapse: collapse; width: 100%; font-size: 12px; }
td, th { padding: 1px 6px; text-align: left; }
td.n, th.n { text-align: right; }
th { color: #9fa7b3; font-weight: 400; }
tr.wide td { border-top: 1px solid #24282d; padding: 4px 6px; }
.number { display: flex; align-items: center; justify-content: center; font-size: 30px; font-weight: 600; }
.number { color: #111217; }
.empty { color: #9fa7b3; text-align: center; padding-top: 40px; }
i { display: inline-block; width: 12px; height: 3px; margin: 0 6px 3px 0; }
"""


def render_page(prometheus: Prometheus, name: str, window: Window) -> str:
    """The page of a dashboard. Raises AssertionError if Prometheus rejects a query."""
    dashboard = read_dashboard(name)
    parts, bottom = [], 0
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        bottom = max(bottom, at["y"] + at["h"])
        left, top = at["x"] * _COLUMN, at["y"] * _ROW
        if panel["type"] == "row":
            parts.append(f'<h3 style="left:{left:.0f}px;top:{top:.0f}px">{escape(panel["title"])}</h3>')
            continue
        width, height = int(at["w"] * _COLUMN - _GAP), at["h"] * _ROW - _GAP
        content = _draw_panel(prometheus, panel, window, (width - 18, height - 36))
        parts.append(
            f'<section style="left:{left:.0f}px;top:{top:.0f}px;width:{width}px;height:{height}px">'
            f"<h2>{escape(panel['title'])}</h2>{content}</section>"
        )
    return (
        f'<!doctype html><meta charset="utf-8"><title>{escape(dashboard["title"])}</title><style>{_STYLE}</style>'
        f'<h1>{escape(dashboard["title"])}</h1><p class="about">{escape(dashboard["description"])}</p>'
        f'<main style="height:{bottom * _ROW + 8}px">{"".join(parts)}</main>'
    )


def _draw_panel(prometheus: Prometheus, panel: Panel, window: Window, size: tuple[int, int]) -> str:
    if panel["type"] == "table":
        drawn = _draw_table(prometheus, panel, window)
    else:
        draw = {
            "timeseries": _draw_graph,
            "heatmap": _draw_heat_map,
            "state-timeline": _draw_timeline,
            "stat": _draw_number,
        }[panel["type"]]
        drawn = draw(prometheus, panel, window, size)
    empty = _defaults(panel).get("noValue", "No data")
    return drawn or f'<div class="empty">{escape(empty)}</div>'


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = panel["fieldConfig"]["defaults"]
    return defaults


def _fetch(prometheus: Prometheus, target: dict[str, Any], window: Window) -> list[tuple[str, Series]]:
    """The series of a query over the window, with their names in the legend."""
    found = prometheus.query_range(window.fill_in(target["expr"]), window)
    return [(_name(target["legendFormat"], series.labels), series) for series in found]


def _name(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), template)


def _draw_graph(prometheus: Prometheus, panel: Panel, window: Window, size: tuple[int, int]) -> str:
    defaults, custom = _defaults(panel), _defaults(panel).get("custom", {})
    overrides = {each["matcher"]["options"]: each["properties"] for each in panel["fieldConfig"].get("overrides", [])}
    lines: list[Line] = []
    for target in panel["targets"]:
        properties = {each["id"]: each["value"] for each in overrides.get(target["refId"], [])}
        fixed = COLORS.get(properties.get("color", {}).get("fixedColor", ""))
        for name, series in _fetch(prometheus, target, window):
            color = fixed or PALETTE[len(lines) % len(PALETTE)]
            lines.append(Line(name, series.samples, color, dashed="custom.lineStyle" in properties))
    if not lines:
        return ""
    unit, stacked = defaults["unit"], custom.get("stacking", {}).get("mode") == "normal"
    steps = defaults.get("thresholds", {}).get("steps", []) if "thresholdsStyle" in custom else []
    limits = [(step["value"], step["color"]) for step in steps if step.get("value") is not None]
    width, height = size[0], size[1] - _LEGEND_LINE * (min(len(lines), _LEGEND_LINES) + 1)
    low, high = defaults.get("min", 0.0), max(_highest(lines, stacked), *(value for value, _ in limits), 0.0)
    if "max" in defaults:
        high = min(high, defaults["max"])
    is_log = custom.get("scaleDistribution", {}).get("type") == "log"
    scale = Scale(
        window,
        low,
        (high or 1.0) * 1.08,
        width,
        height,
        lambda value: format_value(value, unit),
        is_log,
        unit == "bytes",
    )
    fill = custom.get("fillOpacity", 0) / 100
    return draw_lines(lines, scale, fill=fill, stacked=stacked, limits=limits) + _draw_legend(lines, unit)


def _highest(lines: list[Line], stacked: bool) -> float:
    if not stacked:
        return max(value for line in lines for _, value in line.points)
    sums: dict[float, float] = {}
    for line in lines:
        for at, value in line.points:
            sums[at] = sums.get(at, 0.0) + value
    return max(sums.values())


def _draw_legend(lines: list[Line], unit: str) -> str:
    rows = []
    shown = sorted(lines, key=lambda line: -line.points[-1][1])
    for line in shown[:_LEGEND_LINES]:
        values = [value for _, value in line.points]
        numbers = "".join(f'<td class="n">{format_value(value, unit)}</td>' for value in (values[-1], max(values)))
        rows.append(f'<tr><td><i style="background:{line.color}"></i>{escape(line.name)}</td>{numbers}</tr>')
    return f'<table><tr><th>Name</th><th class="n">Last</th><th class="n">Max</th></tr>{"".join(rows)}</table>'


def _draw_heat_map(prometheus: Prometheus, panel: Panel, window: Window, size: tuple[int, int]) -> str:
    (target,) = panel["targets"]
    coarse = replace(window, step=max(window.step, (window.end - window.start) / 60))
    buckets = sorted(_fetch(prometheus, target, coarse), key=lambda named: float(named[0]))
    unit = panel["options"]["yAxis"]["unit"]
    rows, below = [], dict[float, float]()
    for name, series in buckets:
        counts = [(at, max(0.0, value - below.get(at, 0.0))) for at, value in series.samples]
        rows.append(("over" if name == "+Inf" else f"≤ {format_value(float(name), unit)}", counts))
        below = dict(series.samples)
    return draw_heat(rows, coarse, size) if rows else ""


def _draw_timeline(prometheus: Prometheus, panel: Panel, window: Window, size: tuple[int, int]) -> str:
    rows = [
        (name, series.samples) for target in panel["targets"] for name, series in _fetch(prometheus, target, window)
    ]
    (mapping,) = _defaults(panel)["mappings"]
    names = {value: (each["text"], each["color"]) for value, each in mapping["options"].items()}
    return draw_states(rows, names, window, size) if rows else ""


def _draw_number(prometheus: Prometheus, panel: Panel, window: Window, size: tuple[int, int]) -> str:
    (target,), defaults = panel["targets"], _defaults(panel)
    found = prometheus.query(window.fill_in(target["expr"]), window.end)
    if not found:
        return ""
    value = found[0].last
    steps = [step for step in defaults["thresholds"]["steps"] if step.get("value") is None or value >= step["value"]]
    color = COLORS.get(steps[-1]["color"], steps[-1]["color"])
    text = escape(format_value(value, defaults["unit"]))
    return f'<div class="number" style="background:{color};height:{size[1]}px">{text}</div>'


def _draw_table(prometheus: Prometheus, panel: Panel, window: Window) -> str:
    (target,) = panel["targets"]
    found = prometheus.query(window.fill_in(target["expr"]), window.end)
    if not found:
        return ""
    options = panel["transformations"][0]["options"]
    columns = sorted(options["indexByName"], key=options["indexByName"].get)
    heads = "".join(f"<th>{escape(column)}</th>" for column in columns)
    rows = []
    for series in found:
        values = {**series.labels, "Value": format_value(series.last, _defaults(panel)["unit"])}
        cells = (f"<td>{escape(_shorten(values.get(column, '')))}</td>" for column in columns)
        rows.append(f'<tr class="wide">{"".join(cells)}</tr>')
    return f"<table><tr>{heads}</tr>{''.join(rows)}</table>"


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:24]}…"
