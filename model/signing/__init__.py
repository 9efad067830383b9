"""Signatures of artefact folders: OpenSSF Model Signing (OMS) v1.0 with keys, https://github.com/ossf/model-signing-spec."""
