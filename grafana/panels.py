"""The kinds of panels, and the settings that all dashboards share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from promql import SOURCE
from variables import build_variables

Rows = Iterable[tuple[str, Iterable[Builder[Panel]]]]
States = Sequence[tuple[int, str, str]]
"""Value, text and colour."""
Steps = Sequence[tuple[float, str]]
"""A value and the colour that applies from this value on."""

LIMIT_LINE = [
    DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": "red"}),
    DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [10, 10]}),
    DynamicConfigValue(id_val="custom.fillOpacity", value=0),
]
BUDGET_LINE = [DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": "orange"}), *LIMIT_LINE[1:]]


def in_color(name: str) -> list[DynamicConfigValue]:
    """The overrides that give a series a fixed colour."""
    return [DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": name})]


def graph(title: str, description: str, unit: str, *queries: prometheus.Dataquery, width: int = 12) -> timeseries.Panel:
    """A time series panel, `width` of the 24 columns wide. `unit` is the id of a Grafana unit."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(8)
        .line_width(2)
        .fill_opacity(8)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(options.LegendDisplayMode.TABLE)
            .placement(options.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
            .sort_by("Last *")
            .sort_desc(True)
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
    )
    for target in queries:
        panel.with_target(target)
    return panel


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """The panel with its series on top of each other."""
    stacking = common.StackingConfig().mode(options.StackingMode.NORMAL)
    return panel.stacking(stacking).fill_opacity(40)


def with_threshold_lines(panel: timeseries.Panel, *steps: tuple[float, str]) -> timeseries.Panel:
    """The panel with a dashed line in the given colour at each threshold."""
    style = common.GraphThresholdsStyleConfig().mode(options.GraphTresholdsStyleMode.DASHED)
    return panel.thresholds(build_thresholds([(0, "transparent"), *steps])).thresholds_style(style)


def number(title: str, description: str, unit: str, target: prometheus.Dataquery, *, steps: Steps) -> stat.Panel:
    """The current value as a large number, coloured by steps; the first step's value is ignored."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(4)
        .height(4)
        .no_value("no data")
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_mode(options.BigValueColorMode.BACKGROUND_SOLID)
        .thresholds(build_thresholds(steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(target.instant())
    )


def states(
    title: str, description: str, mapping: States, *queries: prometheus.Dataquery, width: int = 24, height: int = 6
) -> statetimeline.Panel:
    """A bar per series whose colour shows its state over time."""
    results = {
        str(value): ValueMappingResult(text=text, color=color, index=index)
        for index, (value, text, color) in enumerate(mapping)
    }
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit("none")
        .mappings([ValueMap(options=results)])
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .show_value(options.VisibilityMode.AUTO)
        .merge_values(True)
        .line_width(0)
        .row_height(0.8)
        .fill_opacity(85)
        .span(width)
        .height(height)
    )
    for target in queries:
        panel.with_target(target)
    return panel


def heat_map(title: str, description: str, unit: str, target: prometheus.Dataquery, width: int = 12) -> heatmap.Panel:
    """The number of events in each bucket of a histogram over time."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit("short")
        .span(width)
        .height(8)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64))
        .with_target(target)
    )


def rows_of(
    title: str, description: str, target: prometheus.Dataquery, columns: Sequence[str], *, width: int, empty: str
) -> table.Panel:
    """A table of a query's current series. The columns are labels; `empty` is shown if there are no rows."""
    hidden = {name: True for name in ("Time", "Value", "__name__", "job") if name not in columns}
    order = {name: index for index, name in enumerate(columns)}
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit("string")
        .span(width)
        .height(6)
        .no_value(empty)
        .with_target(target)
        .with_transformation(
            DataTransformerConfig(id_val="organize", options={"indexByName": order, "excludeByName": hidden})
        )
    )


def build_thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    """Each colour applies from its value on; the first one also applies to all lower values."""
    first, *others = steps
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(None, first[1]), *(Threshold(value, color) for value, color in others)])
    )


def build_dashboard(name: str, description: str, rows: Rows) -> Dashboard:
    """A dashboard that cannot be edited in Grafana, links to the other dashboards and shows the last hour."""
    others = dashboard.DashboardLink("Atalaya").type(DashboardLinkType.DASHBOARDS).tags(["atalaya"]).keep_time(True)
    board = (
        dashboard.Dashboard(f"Atalaya: {name}")
        .uid(f"atalaya-{name}")
        .description(description)
        .tags(["atalaya"])
        .link(others.include_vars(True))
        .readonly()
        .timezone("browser")
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
    )
    for variable in build_variables():
        board.with_variable(variable)
    for title, panels in rows:
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    return board.build()
