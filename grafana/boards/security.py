"""The security dashboard: who is rejected, why, and whether someone tries to break in."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from panels import build_dashboard, graph, stacked, states, with_threshold_lines
from promql import REQUESTS, increase, occurred, or_none, or_zero, query, rate, select

EVENTS = "atalaya_auth_events_total"
THROTTLED = ('http_route="/auth/token"', 'http_response_status_code="429"')


def build_security() -> Dashboard:
    return build_dashboard(
        "security",
        "Who is rejected and why, and whether someone tries to get in.",
        [
            ("Logins and credentials", credential_panels()),
            ("Limits", limit_panels()),
            ("Audit", audit_panels()),
        ],
    )


def credential_panels() -> Iterable[Builder[Panel]]:
    yield with_threshold_lines(
        graph(
            "Refused and throttled logins, last 5 minutes",
            "Refused: a wrong password, an unknown user, or too many attempts. Throttled: 429 before the password is "
            "checked. An alert fires above 100 refused logins in five minutes.",
            "short",
            query(or_zero(increase(EVENTS, "5m", "", 'event="token"', 'outcome="refused"')), "refused", "A"),
            query(or_zero(increase(f"{REQUESTS}_count", "5m", "", *THROTTLED)), "throttled", "B"),
        ),
        (100, "red"),
    )
    yield graph(
        "Requests denied by kind",
        "401: no valid credential. 403: without the scope. 404: also what belongs to others. 429: over a limit.",
        "reqps",
        *(
            query(or_zero(rate(f"{REQUESTS}_count", "", f'http_response_status_code="{status}"')), status, ref_id)
            for status, ref_id in (("401", "A"), ("403", "B"), ("404", "C"), ("429", "D"))
        ),
    )
    yield graph(
        "Events of logins and credentials",
        "The most frequent events. Many rejected checks indicate password guessing or an expired key of a client.",
        "ops",
        query(
            or_none(occurred(rate(EVENTS, "event, outcome"), "event, outcome", EVENTS), "event"),
            "{{event}} {{outcome}}",
        ),
        width=24,
    )
    yield graph(
        "Reads of the secrets that failed, last 5 minutes",
        "Unavailable: the provider did not respond or denied access. Rejected: a value is missing or weak. "
        "Meanwhile the "
        "gateway uses the values that it has.",
        "short",
        *(
            query(or_zero(increase("atalaya_secret_reads_total", "5m", "", f'outcome="{outcome}"')), outcome, ref_id)
            for outcome, ref_id in (("unavailable", "A"), ("rejected", "B"))
        ),
        width=24,
    )


def limit_panels() -> Iterable[Builder[Panel]]:
    limited = "atalaya_rate_limited_total"
    yield stacked(
        graph(
            "Rejected by a rate limit (429)",
            "Rejected requests per second, by limit.",
            "reqps",
            query(or_none(occurred(rate(limited, "limit"), "limit", limited), "limit"), "{{limit}}"),
            width=8,
        )
    )
    yield states(
        "Store of the limits",
        "While it is unavailable, half of each limit is allowed, counted on each machine or in each process.",
        [(1, "shared", "green"), (0, "unavailable", "red")],
        query(f"min by (store) ({select('atalaya_limit_store_up')})", "{{store}}"),
        width=8,
        height=8,
    )
    yield graph(
        "Requests checked against halved limits",
        "Requests per second while the shared store was unavailable.",
        "reqps",
        query(or_none(rate("atalaya_limit_fallbacks_total", "store"), "store"), "{{store}}"),
        width=8,
    )


def audit_panels() -> Iterable[Builder[Panel]]:
    yield with_threshold_lines(
        graph(
            "Audit entries that could not be written, last 5 minutes",
            "Above 0 logins and changes to users and keys are rejected, because they cannot be recorded.",
            "short",
            query(or_zero(increase("atalaya_audit_failures_total", "5m")), "not written"),
        ),
        (1, "red"),
    )
    yield graph(
        "Contradictions of the ledger, last hour",
        "Rows that contradict a signature or what the gateway wrote: changed by someone, or from an older copy.",
        "short",
        query(or_zero(increase("atalaya_ledger_contradictions_total", "1h")), "contradictions"),
    )
