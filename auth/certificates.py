"""Client certificates (mutual TLS) whose subjects are mapped to users."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from cryptography import x509

from auth.accounts.store import UserStore
from auth.authenticator import VerifiedCredential
from auth.certificate_subjects import read_subject
from auth.errors import InvalidToken
from auth.principal import ROLE_SCOPES, Principal

RECHECK_S = 60.0


class CertificateUsers:
    """Maps the subjects of verified certificates to user names; `clock` returns seconds since 1970.

    The TLS server has already verified the certificate chain. The period of validity is checked here as well, because
    a cached certificate must not outlive it.
    """

    def __init__(self, users: UserStore, names: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._users = users
        self._names = {read_subject(subject): name for subject, name in names.items()}
        self._clock = clock

    async def verify(self, pem: str) -> VerifiedCredential:
        """Map a PEM certificate to its user. Raises InvalidToken, DatabaseUnavailable."""
        try:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            name = self._names[certificate.subject]
        except (ValueError, KeyError, x509.InvalidVersion):
            raise InvalidToken("This certificate belongs to no user. Log in another way.") from None
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        found = await self._users.find(name)
        if found is None or found[0].disabled_at or not begins <= datetime.fromtimestamp(self._clock(), UTC) < ends:
            raise InvalidToken("This certificate is not valid now. Renew it, or log in another way.")
        user = found[0]
        principal = Principal(user.id, user.name, user.role, ROLE_SCOPES[user.role], ends)
        until = min(ends.timestamp(), self._clock() + RECHECK_S)
        return VerifiedCredential(principal, until, frozenset({f"user:{user.id}"}))
