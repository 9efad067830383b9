"""What the auth room refuses, as classes with a stable code.

    AuthError
    ├── MissingCredentials       missing_credentials
    ├── InvalidToken             invalid_token
    │   └── ExpiredToken         invalid_token
    ├── InsufficientScope        insufficient_scope
    ├── BadCredentials           bad_credentials
    ├── UnknownScope             invalid_scope
    ├── UserExists               user_exists
    ├── UserNotFound             user_not_found
    ├── BadUserName              bad_user_name
    ├── PasswordRefused          password_refused
    ├── WeakSigningKey           weak_signing_key
    ├── HashingBusy              hashing_busy
    └── DatabaseUnavailable      database_unavailable

Transports map these classes; nothing here knows an HTTP status, and no message holds a secret.
"""

from __future__ import annotations

from typing import ClassVar


class AuthError(Exception):
    """Base of the room's errors; its message is one sentence that says what to do."""

    code: ClassVar[str]


class MissingCredentials(AuthError):
    code = "missing_credentials"


class InvalidToken(AuthError):
    code = "invalid_token"


class ExpiredToken(InvalidToken):
    """The same code as its parent: RFC 6750 knows one word for both."""


class InsufficientScope(AuthError):
    """The caller is known but may not do this; `scope` names what is missing."""

    code = "insufficient_scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This needs the scope {scope}. Ask for a token that has it.")
        self.scope = scope


class BadCredentials(AuthError):
    """Unknown user, wrong password or disabled user: the caller cannot tell which."""

    code = "bad_credentials"

    def __init__(self) -> None:
        super().__init__("The user name or the password is wrong. Check both and try again.")


class UnknownScope(AuthError):
    """A scope was asked for that does not exist or that the role does not grant."""

    code = "invalid_scope"


class UserExists(AuthError):
    code = "user_exists"


class UserNotFound(AuthError):
    code = "user_not_found"


class BadUserName(AuthError):
    code = "bad_user_name"


class PasswordRefused(AuthError):
    """The new password is too short, too long or too easy to guess."""

    code = "password_refused"


class WeakSigningKey(AuthError):
    """The signing key is missing, unreadable, of another kind, or has fewer than 256 bits."""

    code = "weak_signing_key"


class HashingBusy(AuthError):
    """Too many passwords are waiting to be hashed. `retry_after_s` is in whole seconds, at least 1."""

    code = "hashing_busy"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DatabaseUnavailable(AuthError):
    """The database cannot be reached, or its URL names no known kind."""

    code = "database_unavailable"
