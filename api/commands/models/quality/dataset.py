"""`atalaya dataset build`: make a data set from the kept images of labelled predictions."""

from __future__ import annotations

import glob
import hashlib
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from api.commands.database import CommandEvent, open_migrated_engine, recorded_run, run_with_engine, write_event
from api.commands.options.times import parse_time
from api.commands.output import JsonFlag, format_count, print_json, print_table, progress_bar
from api.errors import CommandFailed, NoLabelledImages, SettingsError
from api.services.personal_data.archive import open_image_archive
from api.settings import Settings, load_settings
from auth.accounts.store import UserStore
from model.offline.collecting.collection import Collector, LabelledImage
from model.offline.collecting.manifest import read_splits, summarise, write_manifest
from model.offline.collecting.splits import Split
from monitoring.quality.labelled import LabelledPrediction, count_labelled, iterate_labelled
from monitoring.tasks.runs import Task
from storage.images.archive import ImageArchive, is_older
from storage.images.errors import ImageUnreadable

app = typer.Typer(no_args_is_help=True)
_INCOMPLETE = ".incomplete"


class Skipped(StrEnum):
    """Why a labelled prediction is not in the data set."""

    NOT_KEPT = "not_kept"
    UNREADABLE = "unreadable"
    CHANGED = "changed"


@app.callback()
def dataset() -> None:
    """Build training data sets from labelled predictions."""


@app.command("build")
def build(
    out: Annotated[Path, typer.Option(help="The folder to create, for `atalaya train --data` and `evaluate --data`.")],
    since: Annotated[
        datetime | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Only predictions from this time on (UTC)."),
    ] = None,
    previous: Annotated[
        list[Path] | None,
        typer.Option(metavar="MANIFEST.json", help="Keep the splits of that earlier data set. Can be repeated."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Build a data set from labelled predictions whose images were kept, without duplicates and split for training."""
    settings = load_settings()
    archive = open_image_archive(settings)
    if archive is None:
        raise SettingsError(
            "IMAGES__URL is not set. Set it to the store of kept images, which data sets are made from."
        )
    _check_free(out)
    earlier_splits = read_splits(previous or ())
    with recorded_run(Task.DATASET), new_folder(out) as folder:
        summary = _build(settings, archive, folder, earlier_splits, since)
        event = CommandEvent("dataset", "built", detail={"images": str(summary["images"])})
        write_event(settings, event)
    print_json({"out": str(out), **summary}) if as_json else _print_summary(out, summary)


def _build(
    settings: Settings, archive: ImageArchive, folder: Path, earlier_splits: Mapping[str, Split], since: datetime | None
) -> dict[str, Any]:
    """Write the data set and return its summary. Raises NoLabelledImages, LedgerUnavailable, ImageStoreUnavailable."""
    permissions = run_with_engine(settings, lambda engine: UserStore(engine).list_image_permissions())
    collector, skipped, classes = Collector(folder, earlier_splits), Counter[str](), dict[str, None]()
    with open_migrated_engine(settings) as engine, progress_bar("Collecting", count_labelled(engine, since)) as advance:
        for number, prediction in enumerate(iterate_labelled(engine, since), start=1):
            image = _read_image(archive, prediction, permissions.get(prediction.owner))
            if isinstance(image, Skipped):
                skipped[image] += 1
            else:
                collector.add(image)
                classes |= dict.fromkeys((*prediction.classes, prediction.label))
            advance(number)
    if not classes:
        raise NoLabelledImages(skipped.total())
    collected = collector.finish(tuple(classes))
    summary = summarise(collected, tuple(classes), {reason.value: skipped[reason] for reason in Skipped})
    write_manifest(folder, collected, summary, datetime.now(UTC), since)
    return summary


def _read_image(
    archive: ImageArchive, prediction: LabelledPrediction, allowed_since: datetime | None
) -> LabelledImage | Skipped:
    """Return the kept image of the prediction, or why it is skipped. Raises ImageStoreUnavailable."""
    if allowed_since is None or is_older(prediction.id, allowed_since):
        return Skipped.NOT_KEPT
    try:
        content = archive.read(prediction.owner, prediction.id)
    except ImageUnreadable:
        return Skipped.UNREADABLE
    if content is None:
        return Skipped.NOT_KEPT
    if not prediction.intact or hashlib.sha256(content).hexdigest() != prediction.sha256:
        return Skipped.CHANGED
    return LabelledImage(prediction.id, prediction.model, prediction.label, prediction.sha256, content)


def _check_free(out: Path) -> None:
    """Raises CommandFailed."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CommandFailed(f"{out} already exists. Choose another --out.")
    if not out.absolute().parent.is_dir():
        raise CommandFailed(f"The folder {out.absolute().parent} does not exist. Create it first.")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that only its owner can read, and that becomes `out` unless the block fails or is terminated.

    Its images are not encrypted, so folders left behind by killed processes are removed first.
    """
    parent, prefix = out.absolute().parent, f".{out.name}."
    for left in parent.glob(f"{glob.escape(prefix)}*{_INCOMPLETE}"):
        shutil.rmtree(left, ignore_errors=True)
    earlier = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(tempfile.mkdtemp(_INCOMPLETE, prefix, parent))
    try:
        yield folder
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, earlier)


def _print_summary(out: Path, summary: Mapping[str, Any]) -> None:
    rows = [[label, *map(str, counts.values()), str(sum(counts.values()))] for label, counts in _sort(summary)]
    print_table(("class", *(split.value for split in Split), "all"), rows)
    splits = ", ".join(f"{count} {split}" for split, count in summary["splits"].items())
    typer.echo(f"{out}: {format_count(summary['images'], 'image')} ({splits}).")
    typer.echo(f"{format_count(summary['duplicates'], 'further prediction')} of the same images.")
    for name, meaning in (("conflicts", "left out"), ("doubtful", "kept; look at them")):
        kind = "equal" if name == "conflicts" else "similar"
        for conflict in summary[name]:
            labels, predictions = ", ".join(conflict["labels"]), " ".join(conflict["predictions"])
            typer.echo(f"{kind} images with the labels {labels} ({meaning}): {predictions}")
    skipped = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in summary["skipped"].items())
    typer.echo(f"Labelled predictions without an image: {skipped}.")


def _sort(summary: Mapping[str, Any]) -> Sequence[tuple[str, Mapping[str, int]]]:
    """Return the classes with the most frequent first."""
    classes: Mapping[str, Mapping[str, int]] = summary["classes"]
    return sorted(classes.items(), key=lambda item: (-sum(item[1].values()), item[0]))
