"""T52: hostile model files are rejected before anything in them is parsed into an object, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import UnsafeModelFile
from model.importing.importer import ImportOptions, import_model
from tests.model.importing.model_files import ARCHIVES, BOTH_FORMATS, write_hostile

# What the error names, for each kind of file as .keras and as .h5.
REASONS = {
    "lambda": "layers\\[1\\] is of the class 'keras.layers.Lambda'",
    "lambda_in_a_nested_model": "layers\\[1\\].config.layers\\[1\\] is of the class 'keras.layers.Lambda'",
    "lambda_in_a_wrapper": "'keras.layers.TimeDistributed'",
    "lambda_as_an_activation": "activation is of the class '__lambda__'",
    "exec_as_an_initializer": "kernel_initializer is of the class 'builtins.exec'",
    "exec_as_a_function": "kernel_initializer is the function 'builtins.exec'",
    "exec_by_name": "kernel_initializer refers to 'exec'",
    "system_of_another_module": "'os.system'",
    "unsafe_deserialization": "the function 'keras.config.enable_unsafe_deserialization'",
    "download": "the function 'keras.utils.get_file'",
    "other_model": "has the member 'custom_objects'",
    "tfsm_layer": "'keras.layers.TFSMLayer'",
    "vocabulary_of_a_string_lookup": "'keras.layers.StringLookup'",
    "vocabulary_of_a_text_vectorization": "'keras.layers.TextVectorization'",
    "vocabulary_of_an_allowed_layer": "has the member 'vocabulary'",
    "file_of_an_allowed_layer": "scale refers to a file: '/etc/passwd'",
    "spoofed_module": "'keras.src.saving.saving_lib.Dense'",
    "module_that_begins_alike": "'keras.layers.evil.Dense'",
    "registered_custom_object": "registered as 'evil>Dense'",
    "custom_object": "'evil.Dense'",
    "custom_loss": "the function 'evil.loss'",
    "nested_compile_config": "'evil.Loss'",
    "typespec": "'__typespec__'",
    "path_in_an_inbound_node": "inputs refers to a file: '/etc/x'",
    "no_model": "describes no model",
    "external_data": "keeps data in other files",
    "external_link": "link to another place or another file",
    "soft_link": "link to another place or another file",
    "declared_size": "declares 1125899906842624 bytes, but the file holds 0",
    "compressed_data": "has compressed data",
    "objects": "neither a number nor text",
    "pickle": "no signature|not an HDF5 file",
    "bomb": "100 times the size|declares 4611686018427387904 bytes",
    "truncated": "damaged|truncated",
}


def test_every_kind_of_hostile_file_has_a_reason() -> None:
    """Every kind of hostile file is listed in REASONS."""
    assert sorted(REASONS) == sorted(BOTH_FORMATS)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", sorted(REASONS))
def test_hostile_file_is_rejected_with_a_reason(kind: str, suffix: str, tmp_path: Path) -> None:
    """The allow-list rejects the file with a reason, runs nothing in it and writes nothing."""
    path = write_hostile(kind, tmp_path / f"model{suffix}", tmp_path / "canary")
    with pytest.raises(UnsafeModelFile, match=REASONS[kind]):
        import_model(ImportOptions(path, tmp_path / "out", "model", "1"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", sorted(ARCHIVES))
def test_hostile_archive_is_rejected_with_a_reason(kind: str, tmp_path: Path) -> None:
    """An archive with other members, links or two members of the same name is rejected, and nothing is extracted."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "model.keras"
    write_hostile(kind, path, tmp_path / "canary")
    with pytest.raises(UnsafeModelFile, match=r"member|regular file|same name"):
        import_model(ImportOptions(path, folder / "out", "model", "1"))
    assert sorted(tmp_path.rglob("*")) == [folder, path]
