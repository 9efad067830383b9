"""The process that pulls: it looks at the MLflow server again and again until its standard input is closed.

It writes a line of JSON for each look, which the gateway counts and logs.
"""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from api.server.exit_status import describe_error, run_to_exit_status
from api.services.mirror.opening import open_mirror
from api.services.mirror.problem import write_problem
from api.settings import reload_settings
from model.errors import ModelError

if TYPE_CHECKING:
    from model.registry.mlflow.mirror import Mirror

LOOK_S = 2.0


def main() -> int:
    settings, output = reload_settings(), sys.stdout
    # Other output, such as log lines, must not mix with the lines that the gateway reads.
    with redirect_stdout(sys.stderr), open_mirror(settings) as mirror:
        while True:
            moved, problem = pull(mirror)
            write_problem(settings, problem.get("code"))
            print(json.dumps({"moved": moved, **problem}), file=output, flush=True)
            closed, _, _ = select.select([sys.stdin], [], [], LOOK_S)
            if closed:
                return 0


def pull(mirror: Mirror) -> tuple[Mapping[str, str | None], dict[str, str]]:
    """Return the aliases that moved, and the code and the reason of the first failure if there is one."""
    try:
        found = mirror.pull()
    except ModelError as error:
        return {}, _describe(error)
    return found.moved, _describe(next(iter(found.refused.values()))) if found.refused else {}


def _describe(error: ModelError) -> dict[str, str]:
    code, (reason, *_) = describe_error(error)
    return {"code": code, "reason": reason}


if __name__ == "__main__":
    sys.exit(run_to_exit_status(main))
