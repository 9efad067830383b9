"""MLflow's Model Registry, mirrored into a FileRegistry from which the gateway serves (docs/adr/0041-mlflow.md)."""
