"""An archive for retraining on another machine: code, data and start model, but no settings and no secrets.

The images may show people, so only its owner can read the archive, and a finished run removes the unpacked files.

The archive is a zipapp (PEP 441): `python FILE.pyz FOLDER` retrains there, and writes the result to FOLDER.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from msgspec.structs import asdict, replace

from model.errors import DatasetError
from model.offline.dataset import find_test_folder, find_training_folder, find_validation_folder, list_images
from model.offline.keras_process import PROJECT_ROOT, run_entry_point
from model.offline.retrain import CARD, METRICS, MODEL, RetrainOptions
from model.registry.artefact import MANIFEST

_OPTIONS, _DATA, _START = "retrain.json", "data", "start"
_COMPANIONS = (MANIFEST, METRICS, CARD)
_MAIN = """import sys
from model.offline.retrain.archive import main
sys.exit(main())
"""


def write_archive(path: Path, options: RetrainOptions) -> None:
    """Write everything that a retraining with these options needs. `options.out` is ignored. Raises DatasetError."""
    if path.exists():
        raise DatasetError(f"{path} already exists. Choose another name.")
    temporary = path.with_name(f".{path.name}.new")
    packed = replace(options, data=_DATA, start=f"{_START}/{MODEL}", out="")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with (
            os.fdopen(descriptor, "wb") as file,
            ZipFile(file, "w", strict_timestamps=False) as archive,  # files may have times before 1980
        ):
            archive.writestr("__main__.py", _MAIN)
            archive.writestr(_OPTIONS, json.dumps(asdict(packed)))
            for source, name in _list_files(options):
                compression = ZIP_DEFLATED if source.suffix == ".py" else ZIP_STORED  # images and models are compressed
                archive.write(source, name, compression)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main() -> int:
    """Retrain with the archive that this process runs from, in the folder given as the only argument."""
    if len(sys.argv) != 2:
        print(f"usage: python {sys.argv[0]} FOLDER", file=sys.stderr)
        return 2
    return run_entry_point(lambda: _retrain(Path(sys.argv[0]), Path(sys.argv[1])))


def _retrain(archive: Path, out: Path) -> None:
    from model.offline.retrain.process import run_retraining

    out.mkdir(parents=True, exist_ok=True)
    unpacked = out / "input"
    if not unpacked.exists():
        with tempfile.TemporaryDirectory(dir=out) as scratch, ZipFile(archive) as source:
            names = [name for name in source.namelist() if name.startswith((f"{_DATA}/", f"{_START}/", _OPTIONS))]
            (Path(scratch) / "input").mkdir(mode=0o700)
            source.extractall(Path(scratch) / "input", names)
            (Path(scratch) / "input").rename(unpacked)
    options = RetrainOptions(**json.loads((unpacked / _OPTIONS).read_text()))
    run_retraining(replace(options, data=str(unpacked / _DATA), start=str(unpacked / options.start), out=str(out)))
    shutil.rmtree(unpacked)
    print(f"Import {out / MODEL} with `atalaya models import`; {METRICS} and {CARD} belong next to it.")


def _list_files(options: RetrainOptions) -> Iterator[tuple[Path, str]]:
    """Yield each file and class folder with its name in the archive. Raises DatasetError."""
    for source in sorted((PROJECT_ROOT / "model").rglob("*.py")):
        yield source, str(source.relative_to(PROJECT_ROOT))
    data, start = Path(options.data), Path(options.start)
    test = find_test_folder(data)
    if test is None:
        raise DatasetError(f"{data} has no folder test/, which is needed to compare the models. Add one.")
    folders = {"train": find_training_folder(data), "validation": find_validation_folder(data), "test": test}
    for split, folder in folders.items():
        if folder is None:
            continue
        files = list_images(folder)
        for name in files.classes:  # a class without images needs its folder, too
            yield folder / name, f"{_DATA}/{split}/{name}"
        for path, label in zip(files.paths, files.labels, strict=True):
            yield path, f"{_DATA}/{split}/{files.classes[label]}/{path.name}"
    yield start, f"{_START}/{MODEL}"
    for name in _COMPANIONS:
        if start.with_name(name).exists():
            yield start.with_name(name), f"{_START}/{name}"
