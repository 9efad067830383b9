"""What production refuses to start with."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from api.errors import SettingsError
from api.settings import Settings
from auth.errors import PasswordRefused
from auth.passwords import check_password_policy


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
