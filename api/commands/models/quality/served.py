"""`atalaya evaluate --served`: evaluate the served model beside the gateway, and compare with the last evaluation."""

from __future__ import annotations

import base64
import hashlib
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import typer
from msgspec import Struct, to_builtins
from msgspec.structs import replace
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncEngine

from api.commands.database import CommandEvent, recorded_run, recording, run_with_engine
from api.commands.output import format_count, print_json, print_table, progress_bar
from api.errors import CommandFailed, SettingsError
from api.services.opening import read_engine_options
from api.services.prepared_copies.finding import find_copies
from api.services.registry import find_model_url
from api.settings import Settings
from model.backends.base import ModelInfo
from model.backends.open import open_backend
from model.confidence.calibration import calibrate
from model.offline.background import BackgroundOutputs, predict_in_background
from model.offline.dataset import LabelledFiles, find_evaluation_folder, list_images
from model.offline.metrics import compute_results
from model.quality.intervals import find_wilson_interval
from model.quality.pairs import compare_pairs
from monitoring.chains.ids import new_id
from monitoring.machine.cgroups import memory_limit_bytes, read_working_set
from monitoring.quality.evaluation_store import EvaluationStore
from monitoring.quality.evaluations import EvaluationComparison, EvaluationRecord
from monitoring.tasks.runs import Task
from storage.transactions import record_nothing

NEEDED_BYTES = 96 << 20
"""Peak memory of the model and its predictions, on top of what the process uses before. Measured: 72 MB."""

_MIN_LEFT_BYTES = 32 << 20  # what the evaluation leaves to the gateway in the same container
_NO_DATA = "There are no images to evaluate. Set MODEL__VALIDATION_DATA to a folder of labelled images, or use --data."
_TOO_LITTLE_MEMORY = "Run the evaluation in a container of its own, or raise the memory limit."


class ServedEvaluation(Struct, frozen=True):
    """An evaluation that was recorded. `reference` is the earlier one that it is compared with."""

    record: EvaluationRecord
    reference: EvaluationRecord | None
    seconds: float
    paused_s: float


def report_served(settings: Settings, data: Path | None, *, accept_loss: bool, as_json: bool) -> None:
    """Evaluate the served model, print the results, and fail if it has become worse. Raises CommandFailed."""
    result = evaluate_served(settings, data, accept_loss=accept_loss)
    if as_json:
        print_json(_make_document(result))
    else:
        print_served(result)
    check_loss(result)


def evaluate_served(settings: Settings, data: Path | None, *, accept_loss: bool) -> ServedEvaluation:
    """Evaluate the served model on `data`, by default on MODEL__VALIDATION_DATA, and record the result.

    With `accept_loss` the result becomes the reference of later evaluations, even if the model is worse.
    Raises CommandFailed, SettingsError, DatabaseMissing, DatabaseUnavailable, ArtefactError, RegistryError,
    DatasetError.
    """
    started = time.monotonic()
    with recorded_run(Task.EVALUATE_SERVED):
        folder = data or settings.model.validation_data
        if folder is None:
            raise SettingsError(_NO_DATA)
        _check_memory(NEEDED_BYTES)
        url, copies = find_model_url(settings), find_copies(settings)
        engines = read_engine_options(settings) if settings.model.uses_engines else None
        with closing(open_backend(url, 1, copies, settings.artefact_key(), engines)) as backend:
            info = backend.info
            files = list_images(find_evaluation_folder(folder), info.classes)
            with progress_bar("Evaluating", len(files)) as advance:
                outputs = predict_in_background(backend, files.paths, _keep_memory(advance))
        record = _make_record(info, files, outputs)

        async def store(engine: AsyncEngine) -> tuple[EvaluationRecord, EvaluationRecord | None]:
            return await _compare_and_store(EvaluationStore(engine), record, accept_loss)

        stored, reference = run_with_engine(settings, store)
    return ServedEvaluation(stored, reference, time.monotonic() - started, outputs.paused_s)


def check_loss(result: ServedEvaluation) -> None:
    """Raises CommandFailed if the model has become significantly worse."""
    if result.record.is_loss and result.reference is not None:
        raise CommandFailed(
            f"{result.record.full_name} is significantly worse than {result.reference.full_name} on the same images. "
            "Roll back, or accept the result as the new reference with --accept-loss."
        )


def print_served(result: ServedEvaluation) -> None:
    """Print the results, and how they differ from the results of the reference."""
    record, comparison = result.record, result.record.comparison
    print_table(
        ("model", "images", "accuracy", "95 % interval", "macro F1", "ECE"),
        [
            (
                record.full_name,
                str(record.n),
                f"{record.accuracy:.4f}",
                f"{record.lower:.4f} to {record.upper:.4f}",
                f"{record.macro_f1:.4f}",
                f"{record.ece:.4f}",
            )
        ],
    )
    if comparison is None or result.reference is None:
        typer.echo("  There is no earlier evaluation of these images.")
    else:
        date = time.strftime("%Y-%m-%d", time.gmtime(result.reference.at))
        lost = format_count(comparison.lost, "image is", "images are")
        typer.echo(
            f"  Compared with {result.reference.full_name} on {date}: {lost} no longer correct, "
            f"{comparison.gained} became correct (p = {comparison.p_value:.3g})."
        )
    typer.echo(
        f"  It took {result.seconds:.0f} s, of which it waited {result.paused_s:.0f} s for other processes, "
        f"and at most {_read_peak_bytes() >> 20} MB of memory."
    )


def _make_document(result: ServedEvaluation) -> dict[str, Any]:
    document = to_builtins(result.record)
    del document["correct"]
    return {
        **document,
        "seconds": round(result.seconds, 1),
        "paused_seconds": round(result.paused_s, 1),
        "peak_bytes": _read_peak_bytes(),
    }


def _make_record(info: ModelInfo, files: LabelledFiles, outputs: BackgroundOutputs) -> EvaluationRecord:
    """Summarise the outputs, without a comparison."""
    labels = np.asarray(files.labels)
    probabilities = calibrate(outputs.probabilities, info.confidence.temperature)
    results = compute_results(probabilities, labels, files.classes)
    interval = find_wilson_interval(results.accuracy, results.n)
    data_digest, order = _identify(outputs.digests, [files.classes[label] for label in files.labels])
    correct = probabilities.argmax(axis=1) == labels
    return EvaluationRecord(
        id=new_id(),
        at=int(time.time()),
        model=info.name,
        version=info.version,
        digest=info.digest,
        data_digest=data_digest,
        n=results.n,
        accuracy=results.accuracy,
        lower=interval.lower,
        upper=interval.upper,
        macro_f1=results.macro_f1,
        ece=results.ece,
        correct=base64.b64encode(np.packbits(correct[order]).tobytes()).decode(),
        comparison=None,
        is_loss=False,
    )


def _identify(digests: Sequence[bytes], labels: Sequence[str]) -> tuple[str, list[int]]:
    """Return the digest of a set of labelled images, and their order by digest: neither depends on the files' names."""
    lines = [f"{digest.hex()} {label}\n" for digest, label in zip(digests, labels, strict=True)]
    order = sorted(range(len(lines)), key=lines.__getitem__)
    return hashlib.sha256("".join(lines[index] for index in order).encode()).hexdigest(), order


async def _compare_and_store(
    store: EvaluationStore, record: EvaluationRecord, accept_loss: bool
) -> tuple[EvaluationRecord, EvaluationRecord | None]:
    """Store the record with its comparison; returns it, and its reference. The audit log records an accepted loss."""
    reference = await store.find_reference(record.data_digest)
    if reference is None:
        await store.add(record)
        return record, None
    result = compare_pairs(_read_bits(reference), _read_bits(record))
    comparison = EvaluationComparison(reference.id, result.lost, result.gained, result.p_value)
    record = replace(record, comparison=comparison, is_loss=result.is_loss and not accept_loss)
    event = CommandEvent("evaluation", "loss_accepted", f"model:{record.full_name}", {"reference": reference.id})
    is_accepted = result.is_loss and accept_loss
    await store.add(record, record=recording(lambda _: event) if is_accepted else record_nothing)
    return record, reference


def _read_bits(record: EvaluationRecord) -> NDArray[np.bool_]:
    packed = np.frombuffer(base64.b64decode(record.correct), np.uint8)
    return np.unpackbits(packed, count=record.n).astype(np.bool_)


def _keep_memory(advance: Callable[[int], object]) -> Callable[[int], None]:
    """Return `advance` with a check that the gateway in the same container has enough memory."""

    def advance_and_check(done: int) -> None:
        advance(done)
        _check_memory(_MIN_LEFT_BYTES)

    return advance_and_check


def _check_memory(needed: int) -> None:
    """Raises CommandFailed if the container has less than `needed` bytes left."""
    used = read_working_set()
    left = memory_limit_bytes() - (used or 0)
    if left < needed:
        raise CommandFailed(
            f"Only {left >> 20} MB of memory are left; {needed >> 20} MB are needed. {_TOO_LITTLE_MEMORY}"
        )


def _read_peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
