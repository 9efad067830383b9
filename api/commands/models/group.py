"""`atalaya models`: import models, sign, verify and prepare their artefacts, and show candidates and quality."""

from __future__ import annotations

import typer

from api.commands.models import importing, mlflow, prepare, quality, signing, status

app = typer.Typer(no_args_is_help=True)
app.command("import")(importing.import_file)
app.command("sign")(signing.sign)
app.command("verify")(signing.verify)
app.command("prepare")(prepare.prepare)
app.command("status")(status.status)
app.command("quality")(quality.quality)
app.command("publish")(mlflow.publish)
app.command("pull")(mlflow.pull)
