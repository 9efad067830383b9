"""MLflow's Model Registry: copied into a FileRegistry, which the gateway serves from (docs/adr/0041-mlflow.md)."""
