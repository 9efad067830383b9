"""The `atalaya` command. Exit status: 0 done, 1 failed, 2 wrong usage; an error is one line on standard error.

Only the module of the chosen command is imported. `COMMANDS` holds the line that `atalaya --help` shows for each
command, so printing it loads no web framework, database or model library, and command modules import at the top
like any other module (`serve` is the exception, and says why).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from api.server.exit_status import EXPECTED_ERRORS, print_error

# name -> where its function or Typer group is, and its help
COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("api.commands.serve:serve", "Serve predictions until SIGINT or SIGTERM."),
    "demo": ("api.commands.demo:demo", "Start a gateway and make one authenticated prediction on a sample image."),
    "token": ("api.commands.users:token", "Log a user in and print the access token."),
    "classify": ("api.commands.client:classify", "Classify local images with a running gateway."),
    "predict": ("api.commands.local:predict", "Classify local images without a gateway."),
    "evaluate": ("api.commands.local:evaluate", "Evaluate a model on labelled images."),
    "train": ("api.commands.keras:train", "Fine-tune EfficientNetB0 on labelled aerial images."),
    "export": ("api.commands.keras:export", "Convert a .keras file to ONNX and verify that both predict the same."),
    "users": ("api.commands.users:app", "Add, list, change and disable users."),
    "clients": ("api.commands.clients:app", "Add, list and disable OAuth clients."),
    "keys": ("api.commands.keys:app", "Create, list, rotate and revoke API keys; rotate the signing key."),
    "secrets": ("api.commands.secrets:app", "Generate the secrets that a gateway needs."),
    "audit": ("api.commands.audit:app", "Print, verify, export and prune the audit log."),
    "ledger": ("api.commands.ledger:app", "Verify, reproduce, export, prune and erase recorded predictions."),
}


class _LazyCommand(TyperCommand):
    """Stands in the list of commands, and imports the real command once it is chosen."""

    def __init__(self, name: str, target: str, help_line: str) -> None:
        super().__init__(name, help=help_line, short_help=help_line, rich_markup_mode=None)
        self._target = target

    def make_context(self, info_name: str | None, args: list[str], parent: Any | None = None, **extra: Any) -> Any:
        """Make the context of the real command: the group then invokes that context's command."""
        return self._load().make_context(info_name, args, parent, **extra)

    def _load(self) -> Any:
        module, _, attribute = self._target.partition(":")
        target = getattr(import_module(module), attribute)
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.callback()(_nothing)  # with a callback, one command still makes a group
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=self.name, help=self.help)
        else:
            app.command(self.name, help=self.help)(target)
        return typer.main.get_group(app).commands[self.name or ""]


def _nothing() -> None: ...


def main() -> None:
    """Run one command and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    group = TyperGroup(
        name="atalaya",
        help="A secured prediction gateway for aerial images.",
        commands={name: _LazyCommand(name, *entry) for name, entry in COMMANDS.items()},
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    try:
        status = group(arguments, standalone_mode=False)
    except typer.TyperException as error:
        return _print_usage_error(error)
    except EXPECTED_ERRORS as error:
        return print_error(error)
    except typer.Abort:
        return 130
    return status if isinstance(status, int) else 0


def _print_usage_error(error: typer.TyperException) -> int:
    message = error.format_message()
    if message.startswith("Usage:"):  # the command line names no command, and the error holds the help
        print(message, file=sys.stderr)
        return error.exit_code
    return print_error(message, error.exit_code)
