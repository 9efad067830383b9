"""Log training runs, with parameters and results, to an experiment on an MLflow server."""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec import Struct, field

from model.registry.mlflow.server import MlflowServer, NotFound

EXPERIMENT = "atalaya"


class LoggedRun(Struct, frozen=True):
    """The data that MLflow shows about a training run."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def find_experiment(server: MlflowServer) -> str:
    """Return the id of the experiment that contains all runs of this project. Creates it if it is missing.

    Raises RegistryUnavailable, RegistryAccessDenied.
    """
    try:
        return str(server.get("experiments/get-by-name", experiment_name=EXPERIMENT)["experiment"]["experiment_id"])
    except NotFound:
        return str(server.post("experiments/create", name=EXPERIMENT)["experiment_id"])


def log_run(server: MlflowServer, experiment: str, run: LoggedRun, parent: str | None = None) -> str:
    """Create a finished run, as a child of the run `parent` if given. Returns its id.

    Raises RegistryUnavailable, RegistryAccessDenied.
    """
    tags = [] if parent is None else [{"key": "mlflow.parentRunId", "value": parent}]
    created = server.post("runs/create", experiment_id=experiment, run_name=run.name, start_time=now_ms(), tags=tags)
    run_id = str(created["run"]["info"]["run_id"])
    server.post(
        "runs/log-batch",
        run_id=run_id,
        params=[{"key": key, "value": value} for key, value in run.parameters.items()],
        metrics=[{"key": key, "value": value, "timestamp": now_ms(), "step": 0} for key, value in run.metrics.items()],
    )
    server.post("runs/update", run_id=run_id, status="FINISHED", end_time=now_ms())
    return run_id


def now_ms() -> int:
    """Return the time in milliseconds since 1970, the unit of MLflow."""
    return int(time.time() * 1000)
