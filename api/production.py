"""What the gateway, and production above all, refuses to start with."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from api.errors import SettingsError
from api.services.signing_keys import open_keyring
from api.settings import Settings
from auth.accounts.passwords import check_password_policy
from auth.errors import PasswordRefused
from monitoring.chains.signing import Signer
from monitoring.errors import BadLedgerKey


def check_keys(settings: Settings) -> None:
    """Judge every secret before anything is opened. Raises SettingsError, WeakSigningKey."""
    if settings.in_production:
        check_secrets(settings)
    open_keyring(settings)
    try:
        Signer(settings.ledger_key())
    except BadLedgerKey as error:
        raise SettingsError(f"LEDGER__SIGNING_KEY: {error}") from None


def check_secrets(settings: Settings) -> None:
    """Hold the database's password to the rules for users'. Raises SettingsError.

    None is no weak one: a socket or a certificate may let the gateway in. The signing key is judged where it is read.
    """
    database = urlsplit(settings.database_url.get_secret_value())
    if database.password is None:
        return
    try:
        check_password_policy(unquote(database.password), unquote(database.username or ""))
    except PasswordRefused as refused:
        raise SettingsError(f"DATABASE_URL has a password that is too weak for production. {refused}") from None
