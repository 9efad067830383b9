"""`atalaya retrain`: train a candidate for the next version, from fresh data and the model in service."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from msgspec import Struct
from msgspec.structs import asdict

from api.commands.database import command_actor, recorded_run
from api.commands.models.aliases import auditing_move, open_mover
from api.commands.models.importing import add_to_registry, check_version_is_new, import_signed
from api.commands.models.retraining.due import find_due_reasons, find_waiting_candidate
from api.commands.models.retraining.folders import choose_folder, read_comparison
from api.commands.models.retraining.start import StartModel, choose_version, find_start
from api.commands.models.retraining.tracking import open_tracking
from api.commands.models.signing import read_key_file
from api.commands.options.gate import PhotosOption, ScenesOption
from api.commands.options.model import find_keras_python
from api.commands.output import JsonFlag, PasswordStdin, print_json
from api.errors import CandidateWorse
from api.settings import Settings, load_settings
from api.settings.home import home_folder
from model.importing.importer import ImportOptions
from model.offline.keras_process import run_in_keras
from model.offline.retrain import METRICS, MODEL, RetrainOptions
from model.offline.retrain.archive import write_archive
from model.offline.retrain.comparison import PairedCounts
from model.signing.keys import PrivateKey
from monitoring.tasks.runs import Task

_STDERR = 2


class _Target(Struct, frozen=True):
    """The name and version of the candidate, its signing key, and the images besides `data` that its import needs."""

    name: str
    version: str
    key: PrivateKey | None
    photographs: Path | None
    other_scenes: Path | None

    @property
    def full_name(self) -> str:
        return f"{self.name}-v{self.version}"


def retrain(  # noqa: PLR0913, PLR0917  (one argument for each option)
    data: Annotated[Path, typer.Option(help="Folder with train/ and test/, each with one subfolder per class.")],
    start: Annotated[
        Path | None, typer.Option("--from", help="A .keras file or its folder. Default: the served model.")
    ] = None,
    budget: Annotated[float, typer.Option(min=0.1, metavar="MINUTES", help="Time for the search and the fit.")] = 20.0,
    trials: Annotated[int | None, typer.Option(min=1, help="End the search after this many trials.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: a new one in var/retrain/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run, if there is one.")] = False,
    name: Annotated[
        str | None, typer.Option(help="The name of the model. Default: the name of the start model.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="The new version. Default: the next free one.")] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="KEY.pem", help="Sign the artefact with this private key; see `models sign`.")
    ] = None,
    password_stdin: PasswordStdin = False,
    photos: PhotosOption = None,
    scenes: ScenesOption = None,
    tracking: Annotated[str | None, typer.Option(metavar="URL", help="An MLflow server to log the trials to.")] = None,
    pack: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.pyz", help="Only write a program with which another machine can run the retraining."
        ),
    ] = None,
    if_due: Annotated[bool, typer.Option("--if-due", help="Retrain only if there is a reason, and print it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Search hyper-parameters, fit a new version of a model of `atalaya train`, and point CANARY__ALIAS to it.

    The new version is compared with the start model on the test images, and imported like any other model file. If it
    is worse, it stays in the folder of the run, and the exit status is 1. This command never makes it `production`.
    """
    settings = load_settings()
    if pack is not None:
        write_archive(pack, RetrainOptions(str(data), str(find_start(settings, start).file), "", budget, trials))
        next_step = f"On the other machine: python {pack.name} FOLDER"
        print_json({"file": str(pack), "next": next_step}) if as_json else typer.echo(f"Wrote {pack}. {next_step}")
        return
    private_key = None if key is None else read_key_file(key, password_stdin)
    with recorded_run(Task.RETRAIN):
        if if_due and not _report_due(settings, as_json):
            return
        model = find_start(settings, start)
        chosen_name = name or model.name
        chosen_version = version or choose_version(settings, model, chosen_name)
        target = _Target(chosen_name, chosen_version, private_key, photos, scenes)
        folder = choose_folder(out, home_folder() / "var" / "retrain" / target.full_name, resume=resume)
        _check_before(settings, target)
        options = RetrainOptions(str(data.resolve()), str(model.file), str(folder), budget, trials)
        comparison = _train(settings, options, target, tracking)
        golden = _import(settings, options, target, model, comparison)
    _report(target, comparison, golden, as_json)


def _check_before(settings: Settings, target: _Target) -> None:
    """Fail before the training if the version already exists, or if no alias could be moved afterwards."""
    check_version_is_new(settings, target.name, target.version, signed=target.key is not None)
    with open_mover(settings):
        pass


def _train(settings: Settings, options: RetrainOptions, target: _Target, tracking: str | None) -> PairedCounts:
    """Run the retraining, and return its comparison. Raises KerasProcessFailed, RegistryUnavailable, CandidateWorse."""
    folder = Path(options.out)
    with open_tracking(settings, tracking) as track:
        run_in_keras("model.offline.retrain", asdict(options), find_keras_python(), stdout=_STDERR)
        track(target.full_name, json.loads((folder / METRICS).read_text()))
    comparison = read_comparison(folder)
    _check_candidate(comparison, folder)
    return comparison


def _report_due(settings: Settings, as_json: bool) -> bool:
    """Print the reasons why a retraining is due, or that none is due; returns whether one is due.

    While a candidate waits for its verdict, no retraining is due.
    """
    candidate = find_waiting_candidate(settings)
    reasons = [] if candidate else find_due_reasons(settings)
    if not reasons and as_json:
        print_json({"due": [], "candidate": candidate})
    elif not reasons:
        typer.echo(f"{candidate} waits for its verdict." if candidate else "No retraining is due.")
    for reason in reasons:
        typer.echo(f"A retraining is due: {reason}", err=True)
    return bool(reasons)


def _check_candidate(comparison: PairedCounts, folder: Path) -> None:
    """Raises CandidateWorse."""
    if comparison.is_worse:
        raise CandidateWorse(
            f"The candidate recognises {comparison.candidate_correct} of {comparison.images} test images, and the "
            f"start model {comparison.start_correct}. It was not imported. Its model card is in {folder}. Retrain with "
            "more data or a larger --budget."
        )


def _import(
    settings: Settings, options: RetrainOptions, target: _Target, model: StartModel, comparison: PairedCounts
) -> dict[str, object]:
    """Import the candidate into the registry, point the alias to it, and return what the import measured."""
    with TemporaryDirectory(prefix="atalaya-retrain-") as scratch:
        folder = Path(scratch) / "artefact"
        manifest = import_signed(
            ImportOptions(
                Path(options.out) / MODEL,
                folder,
                target.name,
                target.version,
                data=Path(options.data),
                photographs=target.photographs,
                other_scenes=target.other_scenes,
            ),
            target.key,
        )
        add_to_registry(settings, folder, manifest)
    alias = settings.canary.alias
    why = (
        f"retrained from {model.description}: {comparison.candidate_correct} of {comparison.images} test images "
        f"recognised, {comparison.start_correct} before"
    )
    with open_mover(settings) as mover, auditing_move("promoted", target.name, alias, why) as audit:
        mover.promote(target.name, target.version, who=command_actor(), why=why, alias=alias, before_move=audit)
    return dict(manifest.results["golden"])


def _report(target: _Target, comparison: PairedCounts, golden: dict[str, object], as_json: bool) -> None:
    if as_json:
        document = {"model": target.name, "version": target.version, "comparison": asdict(comparison), "golden": golden}
        print_json(document)
        return
    typer.echo(
        f"{target.name} {target.version} recognises {comparison.candidate_correct} of {comparison.images} test images, "
        f"the start model {comparison.start_correct}. It is the candidate now."
    )
