"""Checks files and secrets before anything is opened: the gateway does not start with missing or weak ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import unquote, urlsplit

from api.errors import SettingsError
from api.server.tls import server_context
from api.services.personal_data.archive import open_image_archive
from api.services.secrets.signing_keys import open_keyring
from api.settings import Settings, home_folder, sqlite_file
from auth.accounts.passwords import check_password_policy
from auth.errors import PasswordRefused, WeakSigningKey
from auth.tokens.jws import MIN_DIFFERENT
from monitoring.chains.signing import Signer, Verifier
from monitoring.errors import BadLedgerKey
from storage.filesystems import EPHEMERAL_FILESYSTEMS, find_filesystem
from storage.images.sealing import parse_keys
from storage.private_files import restrict_file

_NOT_RANDOM = (
    "is not random, so it is too weak for ENVIRONMENT=production. Generate 32 random bytes: openssl rand -base64 32."
)
_DURABLE_STORAGE = "Mount a volume there, or use PostgreSQL."


def find_start_problems(settings: Settings) -> Sequence[str]:
    """Return the problems that prevent a start, each in one line that names the setting."""
    checks = (_check_public_keys, _check_issuer, server_context, _check_ports, open_image_archive)
    return _find_problems(settings, [*_SECRET_CHECKS, *checks])


def find_storage_risk(settings: Settings) -> str | None:
    """Return one sentence if the SQLite database is probably lost with the next deployment, or None."""
    path = sqlite_file(settings.database_url.get_secret_value())
    if path is None:
        return None
    if settings.on_railway:
        volume = settings.railway_volume_mount_path
        if volume is not None and path.absolute().is_relative_to(volume):
            return None
        return f"DATABASE_URL: {path} is not on a Railway volume, so each deployment deletes it. {_DURABLE_STORAGE}"
    filesystem = find_filesystem(path.absolute())
    if filesystem not in EPHEMERAL_FILESYSTEMS:
        return None
    return f"DATABASE_URL: {path} is on {filesystem}, which a container loses when it is replaced. {_DURABLE_STORAGE}"


def find_secret_problems(settings: Settings) -> Sequence[str]:
    """Return which secrets are missing or weak: keys and, in production, the passwords of the database and Redis."""
    return _find_problems(settings, _SECRET_CHECKS)


def check_secrets(settings: Settings) -> None:
    """Raises SettingsError with all problems that `find_secret_problems` finds."""
    problems = find_secret_problems(settings)
    if problems:
        raise SettingsError(*problems)


def _find_problems(settings: Settings, checks: Sequence[Callable[[Settings], object]]) -> Sequence[str]:
    problems: list[str] = []
    for check in checks:
        try:
            check(settings)
        except WeakSigningKey as error:
            problems.append(str(error))
        except SettingsError as error:
            problems.extend(error.problems)
    return problems


def _check_ledger_key(settings: Settings) -> None:
    """Raises SettingsError."""
    try:
        Signer(settings.ledger_key())
    except BadLedgerKey as error:
        raise SettingsError(f"LEDGER__SIGNING_KEY: {error}") from None


def _check_public_keys(settings: Settings) -> None:
    """Raises SettingsError."""
    try:
        Verifier(settings.ledger.public_keys)
    except BadLedgerKey:
        raise SettingsError(
            "LEDGER__PUBLIC_KEYS must be public keys as `atalaya ledger key` prints them, separated by commas."
        ) from None


def restrict_secret_files(settings: Settings) -> None:
    """Make .env and the file of the signing keys readable by their owner only, if this user may change that."""
    for path in (home_folder() / ".env", settings.auth.signing_key_file):
        if path is not None:
            restrict_file(path)


def _check_random_keys(settings: Settings) -> None:
    """In production, reject keys that cannot be random, such as 32 zero bytes. Raises SettingsError."""
    if not settings.in_production:
        return
    keys = {
        "LEDGER__SIGNING_KEY": settings.ledger.signing_key,
        "AUTH__DATA_KEY": settings.auth.data_key,
        "IMAGES__KEY": settings.images.key,
    }
    weak = [name for name, key in keys.items() if key is not None and _has_weak_key(key.get_secret_value())]
    if weak:
        raise SettingsError(*(f"{name} {_NOT_RANDOM}" for name in weak))


def _has_weak_key(text: str) -> bool:
    try:
        keys = parse_keys(text)
    except ValueError:
        return False  # another check reports it
    return any(len(set(key)) < MIN_DIFFERENT for key in keys)


def _check_passwords(settings: Settings) -> None:
    """In production, apply the password policy for users to DATABASE_URL and REDIS_URL. Raises SettingsError.

    A URL without a password is accepted: the gateway may log in through a socket or with a certificate.
    """
    if not settings.in_production:
        return
    urls = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    problems = []
    for name, url in urls.items():
        parts = urlsplit(url.get_secret_value() if url is not None else "")
        try:
            if parts.password is not None:
                check_password_policy(unquote(parts.password), unquote(parts.username or ""))
        except PasswordRefused as refused:
            problems.append(f"{name} has a password that is too weak for ENVIRONMENT=production. {refused}")
    if problems:
        raise SettingsError(*problems)


def _check_issuer(settings: Settings) -> None:
    """Raises SettingsError. The default depends on PORT, so a change of PORT would invalidate all tokens."""
    if settings.in_production and settings.auth.issuer is None and settings.railway_public_domain is None:
        raise SettingsError(
            "AUTH__ISSUER is not set. ENVIRONMENT=production requires the gateway's public address, such as "
            "https://atalaya.example.org."
        )


def _check_ports(settings: Settings) -> None:
    """Raises SettingsError."""
    # The kernel would give requests to the socket of METRICS_PORT, which needs no authentication.
    if settings.port == settings.metrics_port:
        raise SettingsError("METRICS_PORT must differ from PORT, whose requests it would receive.")


_SECRET_CHECKS = (open_keyring, _check_ledger_key, _check_random_keys, _check_passwords)
