"""Mirroring the registry of an MLflow server: by a process of its own, so that the gateway loads no client of it.

`python -m api.services.mirror` is that process. A worker starts it, and all workers see in a file what ails it.
"""
