"""The errors of making and restoring backups.

StorageError
└── BackupError
    ├── BackupDamaged            backup_damaged
    ├── BackupTooNew             backup_too_new
    ├── PassphraseWrong          passphrase_wrong
    └── RestoreTargetNotEmpty    restore_target_not_empty
"""

from __future__ import annotations

from storage.errors import StorageError


class BackupError(StorageError):
    """Base of the backup errors."""


class BackupDamaged(BackupError):
    """The file is not a backup, is incomplete, or was changed."""

    code = "backup_damaged"


class BackupTooNew(BackupError):
    """A newer release wrote the backup."""

    code = "backup_too_new"


class PassphraseWrong(BackupError):
    """The passphrase is missing, wrong, or not needed."""

    code = "passphrase_wrong"


class RestoreTargetNotEmpty(BackupError):
    """The target database of the restore already has tables."""

    code = "restore_target_not_empty"
