"""The errors of registries of models.

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
    """The registry refuses a request, and is unchanged, except after MoveUnrecorded."""


class InvalidName(RegistryError):
    """Not the name of a model, version, alias or tag."""

    code = "invalid_name"


class UnknownModel(RegistryError):
    code = "unknown_model"


class UnknownVersion(RegistryError):
    code = "unknown_version"


class UnknownAlias(RegistryError):
    code = "unknown_alias"


class VersionExists(RegistryError):
    """Versions never change."""

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
    """The alias points to that version already, or there is no version to go back to."""

    code = "alias_unchanged"


class MoveUnrecorded(RegistryError):
    """The alias was moved, but the ledger could not record it yet."""

    code = "move_unrecorded"


class RegistryUnavailable(RegistryError):
    """The registry cannot be read or written, or its state is damaged."""

    code = "registry_unavailable"


class RegistryAccessDenied(RegistryError):
    """The registry's server refuses the credentials."""

    code = "registry_access_denied"


class AliasesElsewhere(RegistryError):
    """The registry mirrors another one, where its versions are added and its aliases moved."""

    code = "aliases_elsewhere"

    def __init__(self) -> None:
        super().__init__(
            "This registry is the mirror of an MLflow server. Add versions and move aliases there: they are followed."
        )
