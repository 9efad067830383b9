"""`atalaya models`: sign, verify and prepare the artefacts of models."""

from __future__ import annotations

import typer

from api.commands.models import prepare, signing

app = typer.Typer(no_args_is_help=True)
app.command("sign")(signing.sign)
app.command("verify")(signing.verify)
app.command("prepare")(prepare.prepare)
