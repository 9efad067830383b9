"""The networks of Cloudflare and CloudFront, and their replacement by newer lists."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from api.cli import run
from api.errors import SettingsError
from api.http.addresses.published import ProxyService, parse_published, read_list
from api.settings import load_settings
from api.settings.limits import LimitSettings

RANGES = {
    "prefixes": [
        {"ip_prefix": "120.52.22.96/27", "service": "CLOUDFRONT_ORIGIN_FACING", "region": "GLOBAL"},
        {"ip_prefix": "3.5.140.0/22", "service": "S3", "region": "ap-northeast-2"},
    ],
    "ipv6_prefixes": [{"ipv6_prefix": "2600:9000:1000::/36", "service": "CLOUDFRONT_ORIGIN_FACING"}],
}


def test_shipped_list(tmp_path: Path) -> None:
    """The shipped list has Cloudflare's IPv4 and IPv6 networks, and no private network."""
    networks = read_list(tmp_path, ProxyService.CLOUDFLARE)
    assert sorted({network.version for network in networks}) == [4, 6]
    assert all(network.is_global for network in networks)
    assert any(ip_address("104.16.132.229") in network for network in networks)


def test_refreshed_list_is_used(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`atalaya proxies refresh` installs the networks of several files, which the setting then uses."""
    (tmp_path / "ips-v4").write_text("197.234.240.0/22\n104.16.0.0/13")
    (tmp_path / "ips-v6").write_text("2606:4700::/32\n")
    command = ["proxies", "refresh", "cloudflare", f"{tmp_path}/ips-v4", f"{tmp_path}/ips-v6"]
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["networks"] == 3
    limits = LimitSettings(trusted_proxies="172.30.245.18, Cloudflare")
    networks = ["172.30.245.18/32", "197.234.240.0/22", "104.16.0.0/13", "2606:4700::/32"]
    assert limits.proxy_networks() == list(map(ip_network, networks))
    assert limits.certificate_proxies() == [ip_network("172.30.245.18/32")]
    assert (home / "var" / "networks" / "cloudflare.txt").exists()


def test_cloudfront_needs_a_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The gateway uses CloudFront's origin-facing networks from ip-ranges.json, and does not start without them."""
    monkeypatch.setenv("LIMITS__TRUSTED_PROXIES", "cloudfront")
    with pytest.raises(SettingsError, match=r"TRUSTED_PROXIES: .* Run `atalaya proxies refresh cloudfront FILE`"):
        load_settings()
    (tmp_path / "ip-ranges.json").write_text(json.dumps(RANGES))
    assert run(["proxies", "refresh", "cloudfront", f"{tmp_path}/ip-ranges.json"]) == 0
    networks = load_settings().limits.proxy_networks()
    assert networks == list(map(ip_network, ["120.52.22.96/27", "2600:9000:1000::/36"]))


def test_a_folder_that_cannot_be_read_is_a_problem_of_the_setting(tmp_path: Path) -> None:
    """A file system error is a ValueError that names the file; the shipped list is not used instead."""
    folder = tmp_path / ("x" * 300)  # fails for root too, unlike a folder of another user
    with pytest.raises(ValueError, match=r"cloudflare\.txt cannot be read: File name too long"):
        read_list(folder, ProxyService.CLOUDFLARE)


@pytest.mark.parametrize(
    ("service", "text"),
    [
        (ProxyService.CLOUDFLARE, ""),
        (ProxyService.CLOUDFLARE, "<!doctype html>"),
        (ProxyService.CLOUDFLARE, "0.0.0.0/0"),
        (ProxyService.CLOUDFLARE, "2000::/3"),
        (ProxyService.CLOUDFLARE, "10.0.0.0/8"),
        (ProxyService.CLOUDFRONT, "104.16.0.0/13"),
        (ProxyService.CLOUDFRONT, '{"prefixes": []}'),
        (ProxyService.CLOUDFRONT, '{"prefixes": [], "ipv6_prefixes": []}'),
    ],
)
def test_unusable_lists_are_rejected(service: ProxyService, text: str) -> None:
    """A list without networks, or with one that is private or spans much of the Internet, is rejected."""
    with pytest.raises(ValueError, match=r"no networks|not appear|not public|not a public|too large|ip-ranges.json"):
        parse_published(service, text)


def test_a_failed_refresh_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not a list of networks makes the command fail with one line, and changes nothing."""
    (tmp_path / "page.html").write_text("<!doctype html>")
    assert run(["proxies", "refresh", "cloudflare", f"{tmp_path}/page.html"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "The list in use has not changed." in error
