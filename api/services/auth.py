"""Services that establish who is calling and what they may do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.secrets.signing_keys import watch_signing_keys
from api.settings import Settings
from auth.accounts.deletion import AccountDeletion
from auth.accounts.passwords import PasswordHasher
from auth.accounts.service import AccountService
from auth.accounts.store import UserStore
from auth.api_keys.last_use import LastUseRecorder
from auth.api_keys.store import KeyStore, is_api_key
from auth.authenticator import Authenticator, CredentialVerifiers, VerifiedCredential, token_targets
from auth.certificates import CertificateUsers
from auth.changes import ChangeFeed
from auth.clients import ClientStore
from auth.login.service import LoginService
from auth.login.throttle import LoginThrottle
from auth.login.totp import OneTimeCodes
from auth.login.upkeep import follow_upkeep
from auth.quotas.meter import UsageMeter
from auth.sessions import SessionStore
from auth.tokens.access import TokenAuthority, TokenPolicy
from auth.tokens.external_issuers import ExternalIssuers
from auth.tokens.keyring import Keyring
from monitoring.metrics import Metrics


class AuthServices(Struct, frozen=True):
    """Accounts, credentials and quotas.

    `certificate_authenticator` is separate from `authenticator`, so that no header is accepted as a client certificate.
    """

    accounts: AccountService
    deletion: AccountDeletion
    one_time_codes: OneTimeCodes
    logins: LoginService
    sessions: SessionStore
    clients: ClientStore
    keys: KeyStore
    key_uses: LastUseRecorder
    changes: ChangeFeed
    keyring: Keyring
    tokens: TokenAuthority
    authenticator: Authenticator
    certificate_authenticator: Authenticator
    meter: UsageMeter


@asynccontextmanager
async def open_auth_services(
    settings: Settings,
    engine: AsyncEngine,
    keyring: Keyring,
    meter: UsageMeter,
    metrics: Metrics,
    activity: Activity,
) -> AsyncIterator[AuthServices]:
    """Read the credential changes made so far, and follow later ones in the background. Raises DatabaseUnavailable."""
    async with AsyncExitStack() as stack:
        keys, key_uses, changes = KeyStore(engine), LastUseRecorder(engine), ChangeFeed(engine)
        stack.push_async_callback(key_uses.close)
        tokens = TokenAuthority(keyring, token_policy(settings))
        external = await stack.enter_async_context(_open_external_issuers(settings, changes, metrics))
        await changes.catch_up()
        activity.when_idle(changes.pause)
        for work in (
            changes.follow(activity.sleep),
            key_uses.follow(activity.sleep),
            follow_upkeep(engine, activity.sleep),
            watch_signing_keys(settings, keyring),
        ):
            await stack.enter_async_context(run_in_background(work))
        hasher = PasswordHasher()
        stack.callback(hasher.close)
        accounts, codes = AccountService(UserStore(engine), hasher), one_time_codes(engine, settings)
        certificates = CertificateUsers(UserStore(engine), settings.auth.client_certificates)
        authenticator = _make_authenticator(tokens, keys, changes, external)
        keyring.on_removal = authenticator.verify_again
        yield AuthServices(
            accounts=accounts,
            deletion=AccountDeletion(engine),
            one_time_codes=codes,
            logins=LoginService(accounts, LoginThrottle(engine), codes),
            sessions=SessionStore(engine, settings.auth.session_seconds),
            clients=ClientStore(engine),
            keys=keys,
            key_uses=key_uses,
            changes=changes,
            keyring=keyring,
            tokens=tokens,
            authenticator=authenticator,
            certificate_authenticator=Authenticator([(lambda _: True, certificates.verify)], changes),
            meter=meter,
        )


def token_policy(settings: Settings) -> TokenPolicy:
    """The issuer, audience and lifetime of the gateway's own tokens."""
    return TokenPolicy(settings.issuer, settings.auth.audience, settings.auth.access_token_seconds)


def one_time_codes(engine: AsyncEngine, settings: Settings) -> OneTimeCodes:
    """The one-time codes, encrypted with AUTH__DATA_KEY; without that key none can be enrolled."""
    key = settings.auth.data_key
    return OneTimeCodes(engine, key.get_secret_value() if key else None)


@asynccontextmanager
async def _open_external_issuers(
    settings: Settings, changes: ChangeFeed, metrics: Metrics
) -> AsyncIterator[CredentialVerifiers]:
    if not settings.auth.issuers:
        yield []
        return
    import httpx  # only for external issuers: it takes start-up time and memory

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient())
        issuers = ExternalIssuers(
            (entry.to_issuer() for entry in settings.auth.issuers),
            client,
            changes.is_revoked,
            on_fetch=lambda issuer, succeeded: metrics.identity_provider_up.labels(issuer).set(succeeded),
        )
        stack.push_async_callback(issuers.close)
        yield [(issuers.accepts, issuers.verify)]


def _make_authenticator(
    tokens: TokenAuthority, keys: KeyStore, changes: ChangeFeed, external: CredentialVerifiers
) -> Authenticator:
    async def verify_own_token(credential: str) -> VerifiedCredential:
        principal = tokens.verify(credential)
        assert principal.expires_at is not None  # noqa: S101  (the gateway's own tokens always expire)
        return VerifiedCredential(principal, principal.expires_at.timestamp(), token_targets(principal))

    return Authenticator([(is_api_key, keys.verify), *external, (lambda _: True, verify_own_token)], changes)
