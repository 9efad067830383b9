"""What happened: metrics, logs, errors, health."""
