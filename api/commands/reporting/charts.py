"""The charts of a report, drawn by pygal as SVG without scripts."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pygal
from pygal.etree import etree
from pygal.style import Style

from model.quality.intervals import Interval

# pygal installs an import finder for its former plug-ins, which warns at every later import.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

_COLORS = ("#1f5fa8", "#b3541e", "#3b7d3c", "#7a4a9a")
_MAX_STEPS = 5
_MAX_LEVEL_LABELS, _ROTATION = 6, 30  # with more labels, they are rotated by this many degrees
_STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground="#333333",
    foreground_strong="#111111",
    foreground_subtle="#666666",
    colors=_COLORS,
    opacity=".9",
    font_family="sans-serif",
    label_font_size=11,
    legend_font_size=12,
    value_font_size=11,
)


class Charts:
    """Draws charts. Each has its own id, so that its style does not affect the others."""

    def __init__(self) -> None:
        self._number = 0

    def draw_lines(self, labels: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> str:
        """Draw a line for each series. None leaves a gap."""
        top = max((value for values in series.values() for value in values if value is not None), default=0)
        chart = pygal.Line(**self._options(), **_find_levels(top), stroke_style={"width": 2})
        return self._draw(chart, labels, series)

    def draw_stack(self, labels: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> str:
        """Draw a bar for each label, made of the values of all series."""
        top = max((sum(value or 0 for value in values) for values in zip(*series.values(), strict=True)), default=0)
        return self._draw(pygal.StackedBar(**self._options(), **_find_levels(top)), labels, series)

    def draw_intervals(self, labels: Sequence[str], series: Mapping[str, Sequence[Interval | None]]) -> str:
        """Draw shares as bars in percent with their intervals."""
        chart = pygal.Bar(**self._options(), **_find_levels(100))
        values = {name: [_to_bar(each) for each in intervals] for name, intervals in series.items()}
        return self._draw(chart, labels, values)

    def _options(self) -> dict[str, Any]:
        return {
            "style": _STYLE,
            "js": (),
            "width": 720,
            "height": 260,
            "disable_xml_declaration": True,
            "legend_at_bottom": True,
            "truncate_label": -1,
            "truncate_legend": -1,
            "show_dots": True,
            "dots_size": 2.5,
            "include_x_axis": True,
        }

    def _draw(self, chart: Any, labels: Sequence[str], series: Mapping[str, Sequence[Any]]) -> str:
        self._number += 1
        chart.uuid = f"chart-{self._number}"
        chart.x_labels = labels
        chart.config.x_label_rotation = _ROTATION if len(labels) > _MAX_LEVEL_LABELS else 0
        for name, values in series.items():
            chart.add(name, values)
        return _serialise(chart.render_tree())


def _find_levels(top: float) -> dict[str, Any]:
    """Return the options of an axis from 0 to at least `top`, with a label at every 1, 2 or 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(top / _MAX_STEPS)) if top > 0 else 1.0
    step = next((power * factor for factor in (1, 2, 5) if power * factor * _MAX_STEPS >= top), 10 * power)
    levels = [round(number * step, 10) for number in range(max(1, math.ceil(round(top / step, 6))) + 1)]
    return {"range": (0, levels[-1]), "y_labels": levels}


def _serialise(tree: Any) -> str:
    """Return the SVG without scripts, which the page's content security policy may forbid.

    The ids that these scripts use are removed too, because they would be the same in every chart.
    """
    for element in tree.iter():
        for script in element.findall("script"):
            element.remove(script)
        if str(element.get("id", "")).startswith("activate-serie"):
            del element.attrib["id"]
    svg: str = etree.tostring(tree, encoding="unicode")
    return svg


def _to_bar(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    low, high = 100 * interval.lower, 100 * interval.upper
    return {"value": round(100 * interval.value, 1), "ci": {"low": low, "high": high}}
