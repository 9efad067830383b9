"""Mirroring the registry of an MLflow server: by a process of its own, so that the gateway loads no client of it.

`python -m api.services.mirror` is that process. One worker starts it, and all workers read from a file
whether it has a problem.
"""
