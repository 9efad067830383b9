"""`atalaya ledger`: verify, reproduce, export, prune and erase predictions."""

from __future__ import annotations

import typer

from api.commands.ledger import export, replay, upkeep, verify
from api.commands.output import JsonFlag, print_json
from api.settings import load_settings
from monitoring.chains.signing import Signer

app = typer.Typer(no_args_is_help=True)


@app.command("key")
def key(as_json: JsonFlag = False) -> None:
    """Print the public key that verifies the ledger."""
    signer = Signer(load_settings().ledger_key())
    if as_json:
        print_json({"public_key": signer.public_key, "key": signer.key_id})
    else:
        typer.echo(signer.public_key)


app.command("verify")(verify.verify)
app.command("replay")(replay.replay)
app.command("export")(export.export)
app.command("prune")(upkeep.prune)
app.command("erase")(upkeep.erase)
