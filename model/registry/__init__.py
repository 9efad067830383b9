"""Artefacts: the models on disk, their manifests and digests."""
