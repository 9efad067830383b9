"""Starting a gateway with the variables that platforms and people set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.gateway import Gateway, make_gateway
from tests.support.ports import free_port

# What `openssl ecparam -name prime256v1 -genkey` writes before the key: the curve's object identifier.
_EC_PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


def openssl_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return _EC_PARAMETERS + pem.decode()


def test_gateway_starts_with_the_variables_of_platforms(new_gateway: Callable[..., Gateway]) -> None:
    """A gateway starts with empty and unrelated variables, line breaks in values, OpenSSL keys and wildcard hosts."""
    gateway = new_gateway(
        MODEL__URL="stub://\n",
        WEB_CONCURRENCY="",
        AUTH="basic",
        MODEL="gpt",
        LIMITS="cpu=1",
        HOST="127.0.0.1",
        ALLOWED_HOSTS="127.0.0.1, *.example.org",
        AUTH__SIGNING_KEY=openssl_key(),
        LIMITS_PREDICT="1/minute",
    )
    assert gateway.get("/v1/me", headers={"Authorization": f"Bearer {gateway.token()}"}).status_code == 200
    statuses = {
        host: gateway.get("/.well-known/jwks.json", headers={"Host": host}).status_code
        for host in ("land.example.org", "a.b.example.org:80", "example.org", "evil-example.org", "localhost")
    }
    assert list(statuses.values()) == [200, 200, 421, 421, 421], statuses
    assert (
        "warning: LIMITS_PREDICT is not a setting and is ignored. Did you mean LIMITS__PREDICT?"
        in gateway.complete_log()
    )


def test_every_problem_of_a_start_is_listed(tmp_path: Path) -> None:
    """A misconfigured gateway reports every problem, one line each, without secrets, and exits with status 1."""
    gateway = make_gateway(tmp_path)
    port = str(free_port())
    del gateway.environment["LEDGER__SIGNING_KEY"]
    gateway.environment |= {
        "ENVIRONMENT": "production",
        "PORT": port,
        "METRICS_PORT": port,
        "DATABASE_URL": "postgresql://atalaya:sesame@db.internal/land",
        "REDIS_URL": "redis://:sesame@cache:6379/0?foo=1",
        "ALLOWED_HOSTS": "https://land.example.org/",
        "AUTH__ISSUER": "land.example.org",
        "AUTH__SIGNING_KEY": "sesame",
        "LIMITS__TOKEN": "many",
        "LEDGER__KEEP_DAY": "30",
        "WEB_CONCURRENCY": "0",
        "TLS_KEY": "/nowhere/key.pem",
    }
    done = gateway.run("serve")
    names = [line.split()[1].rstrip(":") for line in done.stderr.splitlines()]
    assert set(names) == {
        *("METRICS_PORT", "DATABASE_URL", "REDIS_URL", "ALLOWED_HOSTS", "AUTH__ISSUER", "AUTH__SIGNING_KEY"),
        *("LIMITS__TOKEN", "LEDGER__KEEP_DAY", "LEDGER__SIGNING_KEY", "WEB_CONCURRENCY", "TLS_CERTIFICATE"),
    }, done.stderr
    assert len(names) == len(set(names))
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())
    assert done.returncode == 1
    assert "sesame" not in done.stderr


def test_address_of_another_machine_is_named(tmp_path: Path) -> None:
    """A HOST that is not an address of this machine is reported as such, and so is a name that cannot be resolved."""
    gateway = make_gateway(tmp_path)
    for host in ("192.0.2.1", "nowhere.invalid"):
        done = gateway.with_settings(HOST=host).run("serve")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert done.stderr.startswith(f"error: HOST: {host} is not an address of this machine.")
