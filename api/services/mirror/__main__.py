"""The pulling process: polls the MLflow server until its standard input is closed.

It writes one line of JSON for each poll, which the gateway counts and logs.
"""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from api.server.exit_status import describe_error, run_to_exit_status
from api.services.mirror.opening import list_served, open_mirror
from api.services.mirror.problem import write_problem
from api.settings import reload_settings
from model.errors import ModelError

if TYPE_CHECKING:
    from model.registry.mlflow.mirror import Mirror

POLL_S = 2.0
_MAX_REFUSALS = 20
_MAX_REASON_LENGTH = 300


def main() -> int:
    settings, output = reload_settings(), sys.stdout
    served = list_served(settings)
    # Other output, such as log lines, must not mix with the lines that the gateway reads.
    with redirect_stdout(sys.stderr), open_mirror(settings) as mirror:
        while True:
            result = pull(mirror, served)
            write_problem(settings, result.get("code"))
            print(json.dumps(result), file=output, flush=True)
            closed, _, _ = select.select([sys.stdin], [], [], POLL_S)
            if closed:
                return 0


def pull(mirror: Mirror, served: Sequence[str]) -> dict[str, Any]:
    """Return the aliases that moved, and why others were rejected: at most _MAX_REFUSALS, the first by name.

    `code` and `reason` are set if MLflow could not be read or one of the `served` aliases could not be followed.
    """
    try:
        pulled = mirror.pull()
    except ModelError as error:
        return {"moved": {}, "refused": {}, **_describe(error)}
    refused = {alias: _describe(error) for alias, error in pulled.refused.items()}
    problem = next((refused[alias] for alias in served if alias in refused), {})
    others = {
        alias: {**refused[alias], "reason": refused[alias]["reason"][:_MAX_REASON_LENGTH]}
        for alias in sorted(refused.keys() - set(served))[:_MAX_REFUSALS]
    }
    return {"moved": pulled.moved, "refused": others, **problem}


def _describe(error: ModelError) -> dict[str, str]:
    code, (reason, *_) = describe_error(error)
    return {"code": code, "reason": reason}


if __name__ == "__main__":
    sys.exit(run_to_exit_status(main))
