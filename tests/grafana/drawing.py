"""Charts as SVG: lines, stacked areas, states over time, and heat maps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from tests.grafana.boards import Window

PALETTE = (
    *("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#b877d9"),
    *("#5794f2", "#37872d", "#e0b400", "#ca95e5", "#e02f44", "#96d98d"),
)
COLORS = {"green": "#73bf69", "red": "#f2495c", "orange": "#ff9830", "blue": "#5794f2", "transparent": "none"}
GRID = "#2c3235"
TEXT = "#9fa7b3"
_LEFT, _BOTTOM, _TOP, _RIGHT = 100, 20, 8, 8

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A series of a time series chart."""

    name: str
    points: Points
    color: str
    dashed: bool = False


@dataclass(frozen=True)
class Scale:
    """Maps times and values to positions on a chart, and formats the values of its axis."""

    window: Window
    low: float
    high: float
    width: int
    height: int
    format_value: Callable[[float], str]
    logarithmic: bool = False
    binary: bool = False

    def x(self, at: float) -> float:
        share = (at - self.window.start) / (self.window.end - self.window.start)
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = (math.log10(max(each, 1e-9)) if self.logarithmic else each for each in (self.low, self.high))
        at = math.log10(max(value, self.low)) if self.logarithmic else value
        share = (at - low) / (high - low)
        return self.height - _BOTTOM - min(1.0, max(0.0, share)) * (self.height - _BOTTOM - _TOP)

    def ticks(self) -> list[float]:
        if self.logarithmic:
            return [
                10.0**power for power in range(math.ceil(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ]
        unit = 1024.0 ** int(math.log(self.high, 1024)) if self.binary else 1.0
        step = _round_up((self.high - self.low) / 4 / unit) * unit
        return [self.low + step * index for index in range(6) if self.low + step * index <= self.high * 1.0001]


def _round_up(value: float) -> float:
    """The next number of the form 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= value * 0.999)


def draw_lines(
    lines: Sequence[Line],
    scale: Scale,
    *,
    fill: float,
    stacked: bool,
    limits: Sequence[tuple[float, str]],
) -> str:
    """Lines with gaps where samples are missing, over a grid with dashed lines at the limits."""
    parts = [_draw_grid(scale)]
    base: dict[float, float] = {}
    for line in lines:
        points = [(at, base.get(at, 0.0) + value) if stacked else (at, value) for at, value in line.points]
        floor = [(at, base.get(at, 0.0)) for at, _ in line.points] if stacked else []
        parts += [_draw_run(run, floor, line, scale, fill) for run in _split_at_gaps(points, scale.window.step)]
        if stacked:
            base.update(points)
    for value, color in limits:
        if scale.low <= value <= scale.high:
            parts.append(_rule(scale.y(value), scale.width, COLORS.get(color, color), "6 4"))
    return _svg(scale.width, scale.height, parts)


def _draw_run(run: Points, floor: Points, line: Line, scale: Scale, fill: float) -> str:
    path = " ".join(f"{scale.x(at):.1f},{scale.y(value):.1f}" for at, value in run)
    dash = 'stroke-dasharray="8 6"' if line.dashed else ""
    drawn = f'<polyline points="{path}" fill="none" stroke="{line.color}" stroke-width="1.6" {dash}/>'
    if line.dashed or not fill:
        return drawn
    times = {at for at, _ in run}
    below = [(at, value) for at, value in floor if at in times] or [(run[0][0], scale.low), (run[-1][0], scale.low)]
    closing = " ".join(f"{scale.x(at):.1f},{scale.y(value):.1f}" for at, value in reversed(below))
    return f'<polygon points="{path} {closing}" fill="{line.color}" fill-opacity="{fill}"/>{drawn}'


def _split_at_gaps(points: Points, step: float) -> list[Points]:
    runs: list[list[tuple[float, float]]] = []
    for at, value in points:
        if not runs or at - runs[-1][-1][0] > step * 1.5:
            runs.append([])
        runs[-1].append((at, value))
    return list(runs)


def draw_states(
    rows: Sequence[tuple[str, Points]], names: dict[str, tuple[str, str]], window: Window, size: tuple[int, int]
) -> str:
    """A bar for each series. `names` has the text and colour of each value."""
    width, height = size
    scale = Scale(window, 0, 1, width, height, str)
    thickness = min(34.0, (height - _BOTTOM - _TOP) / max(1, len(rows)))
    parts = [_draw_times(scale)]
    for row, (name, points) in enumerate(rows):
        top = _TOP + row * thickness
        parts.append(_label(_LEFT - 8, top + thickness / 2 + 4, name[-16:], "end"))
        for start, end, value in _merge(points, window.step):
            text, color = names.get(f"{value:g}", (f"{value:g}", GRID))
            left, right = scale.x(start), min(scale.x(end), width - _RIGHT)
            fill = COLORS.get(color, color)
            parts.append(
                f'<rect x="{left:.1f}" y="{top + 2:.1f}" width="{max(1.0, right - left):.1f}" '
                f'height="{thickness - 4:.1f}" fill="{fill}"/>'
            )
            if right - left > 60:
                parts.append(_label((left + right) / 2, top + thickness / 2 + 4, text, "middle", "#111217"))
    return _svg(width, height, parts)


def _merge(points: Points, step: float) -> list[tuple[float, float, float]]:
    """Start, end and value of each period during which a series does not change."""
    merged: list[tuple[float, float, float]] = []
    for at, value in points:
        if merged and merged[-1][2] == value and at - merged[-1][1] < step * 0.6:
            merged[-1] = (merged[-1][0], at + step, value)
        else:
            merged.append((at, at + step, value))
    return merged


def draw_heat(rows: Sequence[tuple[str, Points]], window: Window, size: tuple[int, int]) -> str:
    """A row of cells for each bucket, from the lowest up; the colour of a cell shows its number of events."""
    width, height = size
    scale = Scale(window, 0, max(1, len(rows)), width, height, str)
    highest = max((value for _, points in rows for _, value in points), default=0.0)
    cell = (width - _LEFT - _RIGHT) * window.step / (window.end - window.start)
    parts = [_draw_times(scale)]
    for index, (name, points) in enumerate(rows):
        top, bottom = scale.y(index + 1), scale.y(index)
        parts.append(_label(_LEFT - 6, (top + bottom) / 2 + 4, name, "end"))
        for at, value in points:
            if value > 0 and highest:
                opacity = 0.15 + 0.85 * math.sqrt(value / highest)
                parts.append(
                    f'<rect x="{scale.x(at):.1f}" y="{top + 1:.1f}" width="{cell:.1f}" height="{bottom - top - 2:.1f}" '
                    f'fill="#5794f2" fill-opacity="{opacity:.2f}"/>'
                )
    return _svg(width, height, parts)


def _draw_grid(scale: Scale) -> str:
    parts = [_draw_times(scale)]
    for value in scale.ticks():
        parts.append(_rule(scale.y(value), scale.width, GRID))
        parts.append(_label(_LEFT - 6, scale.y(value) + 4, scale.format_value(value), "end"))
    return "".join(parts)


def _draw_times(scale: Scale) -> str:
    window = scale.window
    count = max(2, min(6, scale.width // 110))
    times = [window.start + (window.end - window.start) * index / count for index in range(1, count)]
    labels = (
        _label(scale.x(at), scale.height - 4, time.strftime("%H:%M:%S", time.gmtime(at)), "middle") for at in times
    )
    return "".join(labels)


def _rule(y: float, width: int, color: str, dash: str = "") -> str:
    ends = f'x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-dasharray="{dash}"/>'


def _label(x: float, y: float, text: str, anchor: str, color: str = TEXT) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" font-size="11">{escape(text)}</text>'


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    return f'<svg width="{width}" height="{height}" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
