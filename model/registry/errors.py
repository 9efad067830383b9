"""The errors of model registries.

ModelError
└── RegistryError
    ├── InvalidName              invalid_name
    ├── UnknownModel             unknown_model
    ├── UnknownVersion           unknown_version
    ├── UnknownAlias             unknown_alias
    ├── VersionExists            version_exists
    ├── AliasMoved               alias_moved
    ├── AliasUnchanged           alias_unchanged
    ├── MoveUnrecorded           move_unrecorded
    ├── RegistryAccessDenied     registry_access_denied
    ├── AliasesElsewhere         aliases_elsewhere
    └── RegistryUnavailable      registry_unavailable
"""

from __future__ import annotations

from model.errors import ModelError


class RegistryError(ModelError):
    """The registry rejects an operation. It is unchanged, except after MoveUnrecorded."""


class InvalidName(RegistryError):
    """The name of a model, version, alias or tag is invalid."""

    code = "invalid_name"


class UnknownModel(RegistryError):
    code = "unknown_model"


class UnknownVersion(RegistryError):
    code = "unknown_version"


class UnknownAlias(RegistryError):
    code = "unknown_alias"


class VersionExists(RegistryError):
    """The version exists, and versions never change."""

    code = "version_exists"


class AliasMoved(RegistryError):
    """Another process moved the alias first."""

    code = "alias_moved"

    def __init__(self, alias: str, found: str | None, expected: str | None) -> None:
        super().__init__(
            f"{alias!r} points to {found or 'no version'}, and not {expected or 'no version'} as expected. "
            "Look at the current versions, and decide again."
        )


class AliasUnchanged(RegistryError):
    """The alias already points to that version, or there is no version to roll back to."""

    code = "alias_unchanged"


class MoveUnrecorded(RegistryError):
    """The alias was moved, but the ledger could not record it yet."""

    code = "move_unrecorded"


class RegistryUnavailable(RegistryError):
    """The registry cannot be read or written, or its state is damaged."""

    code = "registry_unavailable"


class RegistryAccessDenied(RegistryError):
    """The registry's server rejects the credentials."""

    code = "registry_access_denied"


class AliasesElsewhere(RegistryError):
    """The registry mirrors another one; versions must be added and aliases moved there."""

    code = "aliases_elsewhere"

    def __init__(self) -> None:
        super().__init__(
            "This registry is the mirror of an MLflow server. Add versions and move aliases there: they are followed."
        )
