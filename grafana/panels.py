"""What the two dashboards share: the style of a graph and the settings of a dashboard."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType, DynamicConfigValue
from promql import SOURCE

LIMIT_LINE = [
    DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": "red"}),
    DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [10, 10]}),
    DynamicConfigValue(id_val="custom.fillOpacity", value=0),
]


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
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
    )
    for target in queries:
        panel.with_target(target)
    return panel


def new_dashboard(uid: str, title: str, description: str) -> dashboard.Dashboard:
    """An empty dashboard that links to the other ones and shows the last hour."""
    others = dashboard.DashboardLink("Atalaya").type(DashboardLinkType.DASHBOARDS).tags(["atalaya"]).keep_time(True)
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["atalaya"])
        .link(others)
        .timezone("browser")
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
    )
