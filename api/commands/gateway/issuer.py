"""Finds the issuer that a new access token must name, so that its gateway accepts it."""

from __future__ import annotations

from typing import Any

import httpx

from api.commands.gateway.failures import check_url
from api.commands.gateway.running import find_gateway
from api.errors import CommandFailed
from api.settings import Settings
from auth.tokens.keyring import Keyring

_METADATA_PATH = "/.well-known/oauth-authorization-server"  # RFC 8414
_KEYS_PATH = "/.well-known/jwks.json"  # RFC 7517


def find_issuer(settings: Settings, keyring: Keyring, url: str | None) -> str:
    """Return the issuer of the gateway at `url`, else of the one that runs in this home, else of the settings.

    Raises BadParameter for a malformed `url`, and CommandFailed if the gateway there would reject a token that
    `keyring` signs.
    """
    if url is None:
        running = find_gateway(settings.port)
        return settings.issuer if running is None else running.issuer
    check_url(url)
    issuer = _get_json(url, _METADATA_PATH).get("issuer")
    if not isinstance(issuer, str):
        raise CommandFailed(f"{url} names no issuer: is this an Atalaya gateway?")
    # HS256 keys are secret, so no gateway lists them.
    if settings.auth.signing_algorithm == "ES256" and keyring.signing.kid not in _list_key_ids(url):
        raise CommandFailed(
            f"The gateway at {url} does not use the signing key of this installation. Get a token from the gateway "
            f"itself: POST {url}/auth/token."
        )
    return issuer


def _list_key_ids(url: str) -> list[Any]:
    keys = _get_json(url, _KEYS_PATH).get("keys")
    return [key.get("kid") for key in keys if isinstance(key, dict)] if isinstance(keys, list) else []


def _get_json(url: str, path: str) -> dict[str, Any]:
    """Raises CommandFailed."""
    try:
        body = httpx.get(url.rstrip("/") + path, timeout=10).raise_for_status().json()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise CommandFailed(f"{url}{path} has the status {status}: is this an Atalaya gateway?") from None
    except httpx.HTTPError as error:
        raise CommandFailed(f"The gateway at {url} cannot be reached: {error}. Check --url.") from None
    except ValueError:
        raise CommandFailed(f"{url}{path} is not JSON: is this an Atalaya gateway?") from None
    if not isinstance(body, dict):
        raise CommandFailed(f"{url}{path} is not a JSON object: is this an Atalaya gateway?")
    return body
