"""`atalaya evaluate --gate`: which images a model rejects as not aerial."""

from __future__ import annotations

from pathlib import Path

from api.commands.output import print_json, print_table, progress_bar
from model.backends.base import Backend
from model.offline.gate_report import list_gate_images, measure_gate


def report_gate(
    backend: Backend, data: Path, photos: Path | None, scenes: Path | None, threads: int, as_json: bool
) -> None:
    """Print how many images of each group the gate rejects, and the categories it wrongly accepts most often."""
    groups = list_gate_images(backend, data, photos, scenes)
    with progress_bar("Evaluating", sum(map(len, groups))) as advance:
        report = measure_gate(backend, groups, advance, threads)
    if as_json:
        print_json({"model": backend.info.full_name, **report.as_dict()})
        return
    print_table(
        ("images", "should be rejected", "number", "rejected", "share"),
        [
            (row.name, "no" if row.is_aerial else "yes", str(row.images), str(row.refused), f"{row.share:.1%}")
            for row in report.rows
        ],
    )
    if report.near_misses:
        print_table(
            ("near misses", "kind", "number", "accepted"),
            [(miss.group, miss.category, str(miss.images), str(miss.accepted)) for miss in report.near_misses],
        )
