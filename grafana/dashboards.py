"""Write the dashboards that Grafana provisions: `python grafana/dashboards.py [FOLDER]`.

Writes one JSON file per dashboard to FOLDER, by default the folder `dashboards` next to this file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from boards.latency import build_latency
from boards.model import build_model
from boards.overview import build_overview
from boards.resources import build_resources
from boards.security import build_security
from boards.usage import build_usage
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

BUILDERS = (build_overview, build_latency, build_resources, build_model, build_security, build_usage)


def to_json(dashboard: Dashboard) -> str:
    """Number the panels, so that their ids do not change between runs, and serialise the dashboard."""
    for number, panel in enumerate(dashboard.panels or [], start=1):
        panel.id_val = number
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main(folder: Path) -> None:
    for build in BUILDERS:
        dashboard = build()
        name = str(dashboard.uid).removeprefix("atalaya-")
        (folder / f"{name}.json").write_text(to_json(dashboard))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards")
