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
    ├── KeyNotFound              key_not_found
    ├── KeyEnded                 key_ended
    ├── KeyBound                 key_bound
    ├── TooManyKeys              too_many_keys
    ├── NoAccount                no_account
    ├── UserExists               user_exists
    ├── UserNotFound             user_not_found
    ├── BadUserName              bad_user_name
    ├── LastAdmin                last_admin
    ├── PasswordRefused          password_refused
    ├── WeakSigningKey           weak_signing_key
    ├── HashingBusy              hashing_busy
    ├── QuotaExceeded            quota_exceeded
    ├── TooManyGuesses           too_many_guesses
    ├── BadCode                  bad_code
    │   └── MissingCode          bad_code
    ├── TotpConflict             totp_conflict
    └── IssuerUnavailable        issuer_unavailable

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


class KeyNotFound(AuthError):
    """Not there, or not the caller's to see: the caller cannot tell which."""

    code = "key_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such API key. List the keys to see their ids.")


class KeyEnded(AuthError):
    """An API key that was revoked or has expired cannot be brought back."""

    code = "key_ended"


class KeyBound(AuthError):
    """An API key cannot be used to get round its own bounds."""

    code = "key_bound"


class TooManyKeys(AuthError):
    code = "too_many_keys"


class NoAccount(AuthError):
    """The caller is no user of this gateway: a client, or another issuer's user."""

    code = "no_account"


class UserExists(AuthError):
    code = "user_exists"


class UserNotFound(AuthError):
    code = "user_not_found"


class BadUserName(AuthError):
    code = "bad_user_name"


class LastAdmin(AuthError):
    """The one enabled administrator who is left can be neither disabled nor given another role."""

    code = "last_admin"


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


class TooManyGuesses(AuthError):
    """Guesses failed before, so the next has to wait. `retry_after_s` is in whole seconds, at least 1."""

    code = "too_many_guesses"

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__("Log-ins have failed for this user or from this address. Wait before the next one.")
        self.retry_after_s = retry_after_s


class BadCode(AuthError):
    """The password is right, but not the one-time code (RFC 6238)."""

    code = "bad_code"

    def __init__(self) -> None:
        super().__init__("The one-time code is missing, wrong or used up. Send the newest one as `totp`.")


class MissingCode(BadCode):
    """Answered as its parent; who sent no code has not guessed."""


class TotpConflict(AuthError):
    """One-time codes cannot be switched on or off as things are; the message says why."""

    code = "totp_conflict"


class QuotaExceeded(AuthError):
    """`quota` is "requests" or "megapixels", `holder` whose it is. `retry_after_s` is in whole seconds, at least 1."""

    code = "quota_exceeded"

    def __init__(self, quota: str, holder: str, *, retry_after_s: int = 1) -> None:
        super().__init__(
            f"This would exceed the monthly quota of {quota} of the {holder}. Wait for the next month (UTC), or ask "
            "an administrator for more."
        )
        self.quota = quota
        self.holder = holder
        self.retry_after_s = retry_after_s


class IssuerUnavailable(AuthError):
    """An outside identity provider's keys cannot be had. `retry_after_s` is in whole seconds, at least 1."""

    code = "issuer_unavailable"

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__("The identity provider that issued the token cannot be reached. Try again later.")
        self.retry_after_s = retry_after_s
