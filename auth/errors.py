"""What the auth room refuses, as classes with a stable code.

    AuthError
    ├── MissingCredentials       missing_credentials
    ├── InvalidToken             invalid_token
    │   └── ExpiredToken         invalid_token
    ├── InsufficientScope        insufficient_scope
    ├── BadCredentials           bad_credentials
    ├── UnknownScope             invalid_scope
    ├── InvalidGrant             invalid_grant
    │   └── RefreshTokenReused   invalid_grant
    ├── InvalidClient            invalid_client
    ├── ClientExists             client_exists
    ├── ClientNotFound           client_not_found
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


class InvalidGrant(AuthError):
    """A refresh token that is unknown, expired, revoked or another client's: the caller cannot tell which."""

    code = "invalid_grant"

    def __init__(self) -> None:
        super().__init__("The refresh token is not valid any more. Log in again.")


class RefreshTokenReused(InvalidGrant):
    """Answered as its parent; the session has ended."""

    def __init__(self, session_id: str, user_id: str) -> None:
        super().__init__()
        self.session_id = session_id
        self.user_id = user_id


class InvalidClient(AuthError):
    """Unknown client, wrong secret or disabled client: the caller cannot tell which."""

    code = "invalid_client"

    def __init__(self) -> None:
        super().__init__("The client's id or its secret is wrong, or missing. Send both, by HTTP Basic or as fields.")


class ClientExists(AuthError):
    code = "client_exists"


class ClientNotFound(AuthError):
    code = "client_not_found"


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
