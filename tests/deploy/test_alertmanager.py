"""Alertmanager's configuration: receivers, grouping and inhibition."""

from __future__ import annotations

import pytest

from tests.deploy.conftest import Tool

CONFIGURATION = "deploy/alertmanager/alertmanager.yml"


def test_the_configuration_is_valid(debian_tool: Tool) -> None:
    """amtool accepts the configuration, with a webhook, Slack, e-mail and the receiver of the watchdog."""
    checked = debian_tool("amtool", "check-config", CONFIGURATION)
    assert "4 receivers" in checked
    assert "3 inhibit rules" in checked


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=AtalayaDown", "severity=critical"), "webhook"),
        (("alertname=AtalayaLedgerSpooling", "severity=warning"), "webhook"),
        (("alertname=AtalayaWatchdog", "severity=none"), "watchdog"),
    ],
)
def test_alerts_reach_their_receiver(labels: tuple[str, ...], receiver: str, debian_tool: Tool) -> None:
    """All alerts go to the webhook, except the watchdog, which has its own receiver."""
    routed = debian_tool("amtool", "config", "routes", "test", f"--config.file={CONFIGURATION}", *labels)
    assert routed.splitlines()[-1] == receiver  # warnings come before it
