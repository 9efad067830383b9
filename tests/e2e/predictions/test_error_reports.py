"""What a running gateway reports to Sentry."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.gateway import running_gateway
from tests.support.polling import wait_until
from tests.support.servers.sentry import running_sink


def test_a_killed_worker_is_reported(tmp_path: Path) -> None:
    """The supervisor reports a killed worker, with release and environment; an idle gateway reports nothing."""
    commit = "0123456789abcdef"
    railway = {"RAILWAY_GIT_COMMIT_SHA": commit, "RAILWAY_ENVIRONMENT_NAME": "pr-12"}
    changes = {"MODEL__URL": "stub://", "WEB_CONCURRENCY": "2", **railway}
    with running_sink() as sink, running_gateway(tmp_path, SENTRY_DSN=sink.dsn, **changes) as gateway:
        assert sink.envelopes == []
        os.kill(gateway.workers()[0], signal.SIGKILL)
        wait_until(lambda: len(sink.events()) == 1, message=gateway.log)
        (event,) = sink.events()
        assert event["exception"]["values"][0]["value"] == "worker_died"
        assert event["tags"]["exit_status"] == "-9"
        assert event["release"].endswith(f"+{commit[:12]}")
        assert event["environment"] == "pr-12"
