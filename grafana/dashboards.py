"""Write the dashboards that Grafana provisions: `python grafana/dashboards.py [FOLDER]`.

Writes latency.json and resources.json to FOLDER, by default the folder `dashboards` next to this file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from latency import build_latency_dashboard
from resources import build_resources_dashboard


def to_json(dashboard: Dashboard) -> str:
    """Number the panels, so that their ids do not change between runs, and serialise the dashboard."""
    for number, panel in enumerate(dashboard.panels or [], start=1):
        panel.id_val = number
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main(folder: Path) -> None:
    (folder / "latency.json").write_text(to_json(build_latency_dashboard()))
    (folder / "resources.json").write_text(to_json(build_resources_dashboard()))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards")
