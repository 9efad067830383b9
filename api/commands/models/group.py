"""`atalaya models`: import and sign models, choose which version is served, and show candidates and quality."""

from __future__ import annotations

import typer

from api.commands.models import aliases, history, importing, listing, mlflow, prepare, signing
from api.commands.models.quality import quality, reference, status

# Printed after the list of commands: the order in which they are used.
_EXAMPLES = """\b
From a file to production, and back:
  atalaya models import FILE --name NAME --version 1.2 --data DATA --key KEY.pem
  atalaya models promote NAME 1.2 --why "4 points better on the new camera"
  atalaya models history NAME --at 2026-11-03T10:00Z
  atalaya models rollback NAME --why "confuses car parks with airports"

The registry is MODEL__REGISTRY=file://FOLDER. Gateways with
MODEL__URL=registry://NAME@production serve what `production` names.
Each command explains its options with --help.
"""

app = typer.Typer(no_args_is_help=True, epilog=_EXAMPLES)
app.command("import")(importing.import_file)
app.command("add")(importing.add)
app.command("sign")(signing.sign)
app.command("verify")(signing.verify)
app.command("list")(listing.list_models)
app.command("show")(listing.show)
app.command("promote")(aliases.promote)
app.command("rollback")(aliases.roll_back)
app.command("history")(history.history)
app.command("tag")(aliases.tag)
app.command("prepare")(prepare.prepare)
app.command("status")(status.status)
app.command("quality")(quality.quality)
app.command("reference")(reference.reference)
app.command("publish")(mlflow.publish)
app.command("pull")(mlflow.pull)
