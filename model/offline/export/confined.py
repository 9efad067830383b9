"""Entry point of the conversion in the sandbox of an import. Its only argument is an ExportOptions as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from msgspec.structs import replace

from model.offline.export import ExportOptions
from model.offline.keras_process import run_entry_point, silence_stderr
from model.registry.artefact import Manifest, read_manifest, write_manifest


def main() -> None:
    """Export the model, which may be an `.h5` file, and add the results on the golden set to the manifest.

    Raises MemoryError if TensorFlow runs out of memory.
    """
    with silence_stderr():
        import tensorflow as tf

    try:
        _import(ExportOptions(**json.loads(sys.argv[1])))
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError from error


def _import(options: ExportOptions) -> None:
    with silence_stderr():
        from model.offline.export.build import export
        from model.offline.export.confidence import choose_sources
        from model.offline.export.golden import measure_golden_set
        from model.offline.export.record import read_record

    source = Path(options.model)
    if source.suffix != ".keras":
        options = replace(options, model=str(_convert(source)))
    manifest = export(options)
    folder = Path(options.out)
    sources = choose_sources(options, read_record(Path(options.model), len(manifest.classes)))
    _add_results(folder, read_manifest(folder), {"golden": measure_golden_set(folder, sources)})


def _convert(source: Path) -> Path:
    """Load an HDF5 file with Keras and save it as a .keras file; copy the training record and the model card."""
    import keras

    from model.errors import ExportRefused

    target = Path("converted") / "model.keras"
    target.parent.mkdir()
    try:
        model = keras.models.load_model(source, compile=False, safe_mode=True)
    except Exception as error:  # the loader raises almost any exception class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportRefused(f"Keras {keras.__version__} cannot load the model: {reason}") from error
    model.save(target)
    for name in ("metrics.json", "MODEL_CARD.md"):
        if source.with_name(name).exists():
            (target.parent / name).write_bytes(source.with_name(name).read_bytes())
    return target


def _add_results(folder: Path, manifest: Manifest, results: dict[str, object]) -> None:
    write_manifest(
        folder,
        name=manifest.name,
        version=manifest.version,
        classes=manifest.classes,
        outputs=manifest.outputs,
        filenames=tuple(manifest.files),
        data=manifest.data,
        results={**manifest.results, **results},
        tools=manifest.tools,
        input_spec=manifest.input_spec,
        confidence=manifest.confidence,
        drift=manifest.drift,
    )


if __name__ == "__main__":
    sys.exit(run_entry_point(main))
