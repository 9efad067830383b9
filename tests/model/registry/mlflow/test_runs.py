"""Runs on a real MLflow server."""

from __future__ import annotations

from model.registry.mlflow.runs import LoggedRun, find_experiment, log_run
from model.registry.mlflow.server import MlflowServer


def test_trial_is_a_finished_run_below_the_one_of_its_retraining(server: MlflowServer, name: str) -> None:
    """MLflow has the parameters and results of a trial, and shows it under its parent."""
    experiment = find_experiment(server)
    parent = log_run(server, experiment, LoggedRun(name))
    trial = LoggedRun(f"{name} trial 0", {"learning_rate": "0.001"}, {"val_accuracy": 0.95})
    run = server.get("runs/get", run_id=log_run(server, find_experiment(server), trial, parent))["run"]
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["experiment_id"] == experiment
    assert [(each["key"], each["value"]) for each in run["data"]["params"]] == [("learning_rate", "0.001")]
    assert [(each["key"], each["value"]) for each in run["data"]["metrics"]] == [("val_accuracy", 0.95)]
    assert {"key": "mlflow.parentRunId", "value": parent} in run["data"]["tags"]
