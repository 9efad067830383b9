"""Checks of secrets before anything is opened: the gateway does not start with missing, unusable or weak ones."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from api.errors import SettingsError
from api.services.signing_keys import open_keyring
from api.settings import Settings, home_folder
from auth.accounts.passwords import check_password_policy
from auth.errors import PasswordRefused
from monitoring.chains.signing import Signer
from monitoring.errors import BadLedgerKey
from storage.private_files import restrict_file


def check_keys(settings: Settings) -> None:
    """Check the signing keys and, in production, the database password. Raises SettingsError, WeakSigningKey."""
    if settings.in_production:
        check_database_password(settings)
    open_keyring(settings)
    try:
        Signer(settings.ledger_key())
    except BadLedgerKey as error:
        raise SettingsError(f"LEDGER__SIGNING_KEY: {error}") from None


def restrict_secret_files(settings: Settings) -> None:
    """Make .env and the file of the signing keys readable by their owner only, where this user may change that."""
    for path in (home_folder() / ".env", settings.auth.signing_key_file):
        if path is not None:
            restrict_file(path)


def check_database_password(settings: Settings) -> None:
    """Apply the password policy for users to the password in DATABASE_URL. Raises SettingsError.

    A URL without a password is accepted: the gateway may log in through a socket or with a certificate.
    """
    database = urlsplit(settings.database_url.get_secret_value())
    if database.password is None:
        return
    try:
        check_password_policy(unquote(database.password), unquote(database.username or ""))
    except PasswordRefused as refused:
        raise SettingsError(f"DATABASE_URL has a password that is too weak for production. {refused}") from None
