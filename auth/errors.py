"""The errors of the auth package, each with a stable code.

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
    ├── LoginRequired            login_required
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
    ├── LoginThrottled           too_many_guesses
    ├── BadCode                  bad_code
    │   └── MissingCode          bad_code
    ├── TotpConflict             totp_conflict
    ├── SubjectBarred            subject_barred
    ├── SubjectNotBarred         subject_not_barred
    └── IssuerUnavailable        issuer_unavailable

Transports map these classes to responses. No message contains a secret.
"""

from __future__ import annotations

from typing import ClassVar


class AuthError(Exception):
    """Base of all errors of this package; the message says what is wrong and what the caller can do."""

    code: ClassVar[str]


class MissingCredentials(AuthError):
    code = "missing_credentials"


class InvalidToken(AuthError):
    code = "invalid_token"


class ExpiredToken(InvalidToken):
    """The token has expired. The code is the parent's, because RFC 6750 defines one code for both."""


class InsufficientScope(AuthError):
    """The caller is authenticated but lacks `scope`."""

    code = "insufficient_scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This requires the scope {scope}. Request a token or create an API key that has it.")
        self.scope = scope


class BadCredentials(AuthError):
    """Unknown user, wrong password or disabled user; the message does not reveal which."""

    code = "bad_credentials"

    def __init__(self, text: str = "The user name or the password is wrong. Check both and try again.") -> None:
        super().__init__(text)


class UnknownScope(AuthError):
    """A requested scope does not exist or is not granted to the caller."""

    code = "invalid_scope"


class InvalidGrant(AuthError):
    """The refresh token is unknown, expired, revoked or another client's; the message does not reveal which."""

    code = "invalid_grant"

    def __init__(self) -> None:
        super().__init__("The refresh token is no longer valid. Log in again.")


class RefreshTokenReused(InvalidGrant):
    """A refresh token was used twice, so the session has ended. Clients receive the same response as for the parent."""

    def __init__(self, session_id: str, user_id: str) -> None:
        super().__init__()
        self.session_id = session_id
        self.user_id = user_id


class InvalidClient(AuthError):
    """Unknown client, wrong secret or disabled client; the message does not reveal which."""

    code = "invalid_client"

    def __init__(self) -> None:
        super().__init__("The client id or secret is wrong or missing. Send both, with HTTP Basic or as form fields.")


class ClientExists(AuthError):
    code = "client_exists"


class ClientNotFound(AuthError):
    code = "client_not_found"


class KeyNotFound(AuthError):
    """The key does not exist, or the caller may not see it; the message does not reveal which."""

    code = "key_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such API key. List the keys to see their ids.")


class KeyEnded(AuthError):
    """The API key was revoked or has expired, so it cannot be rotated."""

    code = "key_ended"


class KeyBound(AuthError):
    """An API key was used for an operation that would evade its own restrictions."""

    code = "key_bound"


class LoginRequired(AuthError):
    """A client's token or a certificate was used for a change of credentials or roles, which requires a login."""

    code = "login_required"

    def __init__(self) -> None:
        super().__init__("This request needs the token of a user who logged in. Log in as a user and repeat it.")


class TooManyKeys(AuthError):
    code = "too_many_keys"


class NoAccount(AuthError):
    """The caller has no user account here: it is a client, or a user of an external issuer."""

    code = "no_account"


class UserExists(AuthError):
    code = "user_exists"


class UserNotFound(AuthError):
    code = "user_not_found"


class BadUserName(AuthError):
    code = "bad_user_name"


class LastAdmin(AuthError):
    """The change would leave no enabled administrator."""

    code = "last_admin"


class PasswordRefused(AuthError):
    """The new password is too short, too long or easily guessed, or has too many combining marks in a row."""

    code = "password_refused"


class WeakSigningKey(AuthError):
    """The signing key is missing, unreadable, of the wrong type, or has fewer than 256 bits."""

    code = "weak_signing_key"


class HashingBusy(AuthError):
    """Too many passwords are waiting to be hashed."""

    code = "hashing_busy"
    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__("Too many passwords and one-time codes are being checked or set. Try again in a second.")


class LoginThrottled(AuthError):
    """Earlier logins failed, so the next one is delayed. `retry_after_s` is a whole number of seconds, at least 1."""

    code = "too_many_guesses"

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__("Logins have failed for this user or from this address. Wait before the next one.")
        self.retry_after_s = retry_after_s


class BadCode(AuthError):
    """The password is right, but the one-time code (RFC 6238) is not."""

    code = "bad_code"

    def __init__(self) -> None:
        super().__init__(
            "The one-time code is missing, wrong or already used. Send the current one: as `totp` to log in, as `code` "
            "to set up or remove one-time codes."
        )


class MissingCode(BadCode):
    """No code was sent, which does not count as a failed guess. Clients receive the same response as for the parent."""


class TotpConflict(AuthError):
    """One-time codes cannot be enabled or removed in the current state; the message says why."""

    code = "totp_conflict"


class QuotaExceeded(AuthError):
    """The request would exceed a monthly quota.

    `quota` is "requests" or "megapixels", `holder` is "account" or "API key"; `retry_after_s` is a whole number of
    seconds, at least 1.
    """

    code = "quota_exceeded"

    def __init__(self, quota: str, holder: str, *, retry_after_s: int = 1) -> None:
        super().__init__(
            f"This would exceed the {holder}'s monthly quota of {quota}. Wait for the next month (UTC), or ask "
            "an administrator for more."
        )
        self.quota = quota
        self.holder = holder
        self.retry_after_s = retry_after_s


class SubjectBarred(AuthError):
    """An administrator has barred this user of an external issuer; `subject` is the subject of the principal."""

    code = "subject_barred"

    def __init__(self, subject: str) -> None:
        super().__init__("This user is barred from this gateway. Ask an administrator to restore access.")
        self.subject = subject


class SubjectNotBarred(AuthError):
    code = "subject_not_barred"


class IssuerUnavailable(AuthError):
    """The keys of an external issuer are unavailable. `retry_after_s` is a whole number of seconds, at least 1.

    `problem` says why they cannot be used although the issuer can be reached.
    """

    code = "issuer_unavailable"

    def __init__(self, problem: str = "", *, retry_after_s: int) -> None:
        state = f"used: {problem}. Ask an administrator to correct that." if problem else "reached. Try again later."
        super().__init__(f"The identity provider that issued the token cannot be {state}")
        self.retry_after_s = retry_after_s
