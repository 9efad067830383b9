"""`atalaya models`: import models, and sign, verify and prepare their artefacts."""

from __future__ import annotations

import typer

from api.commands.models import importing, prepare, signing

app = typer.Typer(no_args_is_help=True)
app.command("import")(importing.import_file)
app.command("sign")(signing.sign)
app.command("verify")(signing.verify)
app.command("prepare")(prepare.prepare)
