"""`atalaya evaluate`: how well a model predicts labelled images, and how far its confidence can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from api.commands.database import recorded_run
from api.commands.models.gate import report_gate
from api.commands.models.quality.evaluation_tables import print_evaluation, print_robustness
from api.commands.models.quality.served import report_served
from api.commands.options.gate import PhotosOption, ScenesOption
from api.commands.options.model import ModelOption, find_keras_python, open_chosen_backend
from api.commands.output import JsonFlag, print_json, progress_bar
from api.errors import CommandFailed
from api.settings import load_settings
from model.backends.base import ModelInfo
from model.offline.changes import ALL_CHANGES, CLEAN, leave_unchanged
from model.offline.dataset import LabelledFiles, find_evaluation_folder, list_images
from model.offline.evaluate import Evaluation, Outputs, average_six_changes, predict_changed_images
from model.offline.evaluate import evaluate as evaluate_outputs
from model.offline.keras_process import find_interpreter
from model.offline.plots import draw_evaluation
from monitoring.machine.cgroups import count_processors
from monitoring.tasks.runs import Task


def _check_coverage(coverage: float | None) -> float | None:
    if coverage is not None and not 0.5 <= coverage < 1:
        raise typer.BadParameter(f"{coverage} is not in 0.5 <= x < 1.")
    return coverage


def _check_plot(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() != ".png":
        raise typer.BadParameter(f"{path} does not end in .png.")
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"The folder {path.absolute().parent} does not exist.")
    return path


DataOption = Annotated[
    Path | None, typer.Option(help="Folder with one subfolder of images per class, or with such subfolders in test/.")
]
ServedFlag = Annotated[
    bool,
    typer.Option(
        "--served",
        help="Evaluate the served model in the gateway's idle processor time, record the result, and fail if it is "
        "worse than before. DATA defaults to MODEL__VALIDATION_DATA.",
    ),
]
AcceptFlag = Annotated[
    bool,
    typer.Option(
        "--accept-loss",
        help="With --served, make this result the reference for later evaluations, even if it is worse.",
    ),
]
RobustnessFlag = Annotated[
    bool,
    typer.Option("--robustness", help="Also evaluate with changed lighting, with noise and at coarser resolutions."),
]
GateFlag = Annotated[bool, typer.Option("--gate", help="Instead, report which images the model rejects as not aerial.")]
CoverageOption = Annotated[
    float | None,
    typer.Option(callback=_check_coverage, help="Also evaluate prediction sets of this coverage, such as 0.95."),
]
PlotOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.png",
        callback=_check_plot,
        help="Plot the reliability diagram and, with --robustness, the accuracies. Needs the Keras environment.",
    ),
]


def evaluate(  # noqa: PLR0913, PLR0917  (one argument for each option)
    data: DataOption = None,
    model: ModelOption = None,
    served: ServedFlag = False,
    accept_loss: AcceptFlag = False,
    robustness: RobustnessFlag = False,
    coverage: CoverageOption = None,
    gate: GateFlag = False,
    photos: PhotosOption = None,
    scenes: ScenesOption = None,
    plot: PlotOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate a model on labelled images.

    With --served, the gateway's model is compared with its previous evaluation; exit status 1 if it has become worse.
    """
    if (photos is not None or scenes is not None) and not gate:
        raise typer.BadParameter("--photos and --scenes need --gate.")
    if served:
        if model or robustness or gate or coverage or plot:
            raise typer.BadParameter("--served takes only --data, --accept-loss and --json.")
        report_served(load_settings(), data, accept_loss=accept_loss, as_json=as_json)
        return
    if accept_loss:
        raise typer.BadParameter("--accept-loss needs --served.")
    if data is None:
        raise typer.BadParameter("Give --data a folder of labelled images, or use --served.")
    if plot is not None:
        find_interpreter(find_keras_python())  # fails before the evaluation, not after it
    changes = {CLEAN: leave_unchanged, **(ALL_CHANGES if robustness else {})}
    threads = count_processors()
    with recorded_run(Task.EVALUATE), closing(open_chosen_backend(model, threads)) as backend:
        info = backend.info
        _check_scores(info, coverage)
        if gate:
            report_gate(backend, data, photos, scenes, threads, as_json)
            return
        files = list_images(find_evaluation_folder(data), info.classes)
        with progress_bar("Evaluating", len(files) * len(changes)) as advance:
            outputs = predict_changed_images(backend, files.paths, changes, advance, threads=threads)
    _report_outputs(info, files, outputs, coverage, plot, as_json=as_json)


def _check_scores(info: ModelInfo, coverage: float | None) -> None:
    if coverage is not None and info.confidence.sets is None:
        raise CommandFailed(
            f"{info.full_name} has no conformal scores, so it makes no prediction sets. "
            "Leave out --coverage, or export the model again with held-out images."
        )


def _report_outputs(
    info: ModelInfo,
    files: LabelledFiles,
    outputs: Mapping[str, Outputs],
    coverage: float | None,
    plot: Path | None,
    *,
    as_json: bool,
) -> None:
    """Evaluate the outputs for the files under each change, and print or plot the results."""
    evaluations = {name: evaluate_outputs(each, files, info, coverage) for name, each in outputs.items()}
    if as_json:
        print_json(_make_document(info, evaluations))
    else:
        print_evaluation(info.full_name, evaluations[CLEAN])
        if len(evaluations) > 1:
            print_robustness(evaluations)
    if plot is not None:
        labels = np.asarray(files.labels)
        draw_evaluation(plot, info.full_name, outputs[CLEAN], labels, evaluations, find_keras_python())


def _make_document(info: ModelInfo, evaluations: dict[str, Evaluation]) -> dict[str, object]:
    clean = evaluations[CLEAN]
    document = {"model": info.full_name, **clean.as_dict()}
    if len(evaluations) > 1:
        changes = {name: each.as_dict() for name, each in evaluations.items() if name != CLEAN}
        document["robustness"] = {"mean_of_six": average_six_changes(evaluations), "changes": changes}
    results = clean.served.as_dict()
    return {**document, "per_class": results["per_class"], "confusion": results["confusion"]}
