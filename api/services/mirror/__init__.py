"""Mirrors the registry of an MLflow server in a separate process, so that the gateway need not load a client for it.

`python -m api.services.mirror` is that process. One worker starts it, and all workers read from a file
whether it has a problem.
"""
