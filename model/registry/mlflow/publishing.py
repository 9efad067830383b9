"""Publish an artefact as a version of a registered model in MLflow."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from model.errors import ArtefactError
from model.registry.artefact import MANIFEST, SIGNATURE, Manifest, read_manifest, read_verified
from model.registry.errors import VersionExists
from model.registry.mlflow.runs import find_experiment, now_ms
from model.registry.mlflow.server import MlflowServer, NotFound
from model.registry.state import check_name
from model.signing.folder import verify_folder
from model.signing.keys import PublicKey

VERSION_TAG = "atalaya.version"


class Published(Struct, frozen=True):
    """A version of the registered model `model`: its number in MLflow, and the version in the artefact's manifest."""

    model: str
    version: str
    number: str


def publish(server: MlflowServer, folder: Path, key: PublicKey | None, alias: str | None = None) -> Published:
    """Upload the artefact in `folder` as a new version, then point `alias` to it.

    With `key`, the artefact must be signed. Raises ArtefactError, VersionExists, InvalidName, RegistryUnavailable,
    RegistryAccessDenied.
    """
    if alias is not None:
        check_name(alias)
    manifest = _read_artefact(folder, key)
    _create_model(server, manifest)
    run, uri = _create_run(server, manifest)
    files = [*manifest.files, MANIFEST, *([SIGNATURE] if (folder / SIGNATURE).exists() else [])]
    path = server.parse_artifact_uri(uri)
    for filename in files:
        try:
            server.upload(f"{path}/{manifest.full_name}/{filename}", folder / filename)
        except OSError as error:
            raise ArtefactError(f"{folder / filename} cannot be read: {error.strerror}.") from error
    server.post("runs/update", run_id=run, status="FINISHED", end_time=now_ms())
    created = server.post(
        "model-versions/create",
        name=manifest.name,
        source=f"{uri}/{manifest.full_name}",
        run_id=run,
        tags=[{"key": VERSION_TAG, "value": manifest.version}],
    )
    published = Published(manifest.name, manifest.version, str(created["model_version"]["version"]))
    if alias is not None:
        server.post("registered-models/alias", name=published.model, alias=alias, version=published.number)
    return published


def _read_artefact(folder: Path, key: PublicKey | None) -> Manifest:
    """Read the manifest, and verify everything that the gateway verifies. Raises ArtefactError, InvalidName."""
    signed = None if key is None else verify_folder(folder, key, complete=False).files
    manifest = read_manifest(folder, signed)
    check_name(manifest.name)
    check_name(manifest.version)
    for filename in manifest.files:
        read_verified(folder, manifest, filename)
    return manifest


def _create_model(server: MlflowServer, manifest: Manifest) -> None:
    """Create the registered model, unless it exists. Raises VersionExists if it has the manifest's version."""
    try:
        server.get("registered-models/get", name=manifest.name)
    except NotFound:
        server.post("registered-models/create", name=manifest.name)
        return
    wanted = f"name = '{manifest.name}' and tags.`{VERSION_TAG}` = '{manifest.version}'"
    found = server.get("model-versions/search", filter=wanted, max_results="1").get("model_versions")
    if found:
        raise VersionExists(
            f"{manifest.name} {manifest.version} was published before, as version {found[0]['version']} in MLflow. "
            "A version never changes: choose another one."
        )


def _create_run(server: MlflowServer, manifest: Manifest) -> tuple[str, str]:
    """Create the run that MLflow stores the artefact in. Returns its id and the URI of its artefacts."""
    experiment = find_experiment(server)
    created = server.post(
        "runs/create", experiment_id=experiment, run_name=manifest.full_name, start_time=now_ms(), tags=[]
    )
    info = created["run"]["info"]
    return info["run_id"], info["artifact_uri"]
