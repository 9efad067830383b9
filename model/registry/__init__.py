"""Artefacts (models on disk with manifests and digests), and the registry of their versions and aliases."""
