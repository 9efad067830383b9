"""The list of commands, and how a command is run: the common options, its errors and its exit status.

Only the module of the chosen command is imported. `COMMANDS` holds the line that `atalaya --help` shows for each
command, so printing it loads no web framework, database or model library. Command modules therefore import at the top
like any other module; comments explain the few imports inside functions.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from api import SERVING_COMMANDS
from api.errors import EXIT_INTERRUPTED, CommandFailed
from api.server.exit_status import DEBUG_OPTION, describe_error, print_error

# name -> where its function or Typer group is, and its help
COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("api.commands.gateway.serve:serve", "Serve predictions until SIGINT or SIGTERM."),
    "demo": ("api.commands.gateway.demo:demo", "Start a gateway and make one authenticated prediction."),
    "healthcheck": ("api.commands.gateway.healthcheck:healthcheck", "Check that the local gateway is ready."),
    "top": ("api.commands.gateway.top.command:top", "Show what a running gateway is doing."),
    "token": ("api.commands.accounts.users:token", "Log in as a user and print the access token."),
    "classify": ("api.commands.client:classify", "Classify local images with a running gateway."),
    "label": ("api.commands.client:label", "Send the true label of a past prediction to a running gateway."),
    "predict": ("api.commands.models.predict:predict", "Classify local images without a gateway."),
    "evaluate": ("api.commands.models.quality.evaluate:evaluate", "Evaluate a model on labelled images."),
    "drift": (
        "api.commands.models.quality.drift:drift",
        "Show which callers' images differ from those the model was measured on.",
    ),
    "train": ("api.commands.models.keras:train", "Fine-tune EfficientNetB0 on labelled aerial images."),
    "retrain": (
        "api.commands.models.retraining.command:retrain",
        "Search for a better version, and make it the candidate.",
    ),
    "export": (
        "api.commands.models.keras:export",
        "Convert a .keras file to ONNX and verify that both predict the same.",
    ),
    "dataset": ("api.commands.models.quality.dataset:app", "Build a training data set from labelled predictions."),
    "models": ("api.commands.models.group:app", "Import, sign, promote and evaluate models, and show their history."),
    "users": ("api.commands.accounts.users:app", "Add, list, change, disable and delete users."),
    "clients": ("api.commands.accounts.clients:app", "Add, list, change and delete OAuth clients."),
    "keys": ("api.commands.accounts.keys:app", "Create, list, rotate and revoke API keys; rotate the signing key."),
    "secrets": ("api.commands.secrets:app", "Generate the secrets that a gateway needs."),
    "proxies": ("api.commands.gateway.proxies:app", "Update the lists of proxy networks."),
    "db": ("api.commands.db:app", "Create the database, or update its tables."),
    "cost": ("api.commands.reporting.cost:cost", "Show what the predictions of a month cost."),
    "report": ("api.commands.reporting.report:report", "Write a quarterly report."),
    "backup": ("api.commands.backup.backup:backup", "Back up the database, the registry of models and the keys."),
    "restore": ("api.commands.backup.restore:restore", "Restore a backup into an empty database, and verify it."),
    "upkeep": (
        "api.commands.upkeep:upkeep",
        "Remove expired entries, run the checks that are due, and print the calendar.",
    ),
    "audit": ("api.commands.audit:app", "Print, verify, export and prune the audit log."),
    "ledger": ("api.commands.ledger:app", "Verify, reproduce, export, prune and erase recorded predictions."),
}

JSON_PRINTED = ContextVar("json_printed", default=False)
"""Whether the running command's JSON document is already on standard output."""

_HELP = {"help_option_names": ["-h", "--help"]}
_BROKEN_PIPE = 141  # the status that shells report for a process killed by SIGPIPE


class LazyCommand(TyperCommand):
    """A placeholder in the list of commands, which imports the real command once it is chosen."""

    def __init__(self, name: str, target: str, help_line: str) -> None:
        super().__init__(name, help=help_line, short_help=help_line, rich_markup_mode=None)
        self._target = target

    def make_context(self, info_name: str | None, args: list[str], parent: Any | None = None, **extra: Any) -> Any:
        """Make the context of the real command: the group then invokes that context's command."""
        command = self.load()
        # From here on Ctrl-C lets the command clean up; until here it ends the process at once.
        if signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, signal.SIG_IGN):
            signal.signal(signal.SIGINT, signal.default_int_handler)
        context = command.make_context(info_name, args, parent, **extra)
        if self.name not in SERVING_COMMANDS:  # those configure the log themselves
            from monitoring.logs.commands import warnings_on_stderr

            context.with_resource(warnings_on_stderr())
        return context

    def load(self) -> Any:
        """Import the real command, and return it."""
        module, _, attribute = self._target.partition(":")
        gc.disable()  # imports create hardly any garbage, and looking for it takes a tenth of the time
        try:
            import_module("monitoring")  # first: it keeps structlog from loading rich
            target = getattr(import_module(module), attribute)
        finally:
            gc.enable()
        app = typer.Typer(
            add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=_HELP
        )
        app.callback()(_nothing)  # with a callback, one command still makes a group
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=self.name, help=self.help)
        else:
            app.command(self.name)(target)  # its help is the docstring
        command = typer.main.get_group(app).commands[self.name or ""]
        _reject_other_encodings(command)
        for each in getattr(command, "commands", {}).values():
            each.short_help = (each.help or "").partition("\n\n")[0]  # the whole sentence; by default it is cut off
        return command


def _reject_other_encodings(command: Any) -> None:
    """Make a command, or each of a group, reject bytes that are not UTF-8, which no database, URL or header has.

    Paths, which typer has converted by then, may have any bytes.
    """
    for parameter in command.params:
        parameter.callback = partial(_check_encoding, parameter.callback)
    for each in getattr(command, "commands", {}).values():
        _reject_other_encodings(each)


def _check_encoding(follow: Callable[..., Any] | None, context: Any, parameter: Any, value: Any) -> Any:
    """Call the parameter's own callback, if its value is valid. Raises BadParameter."""
    try:
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(each, str):
                each.encode()  # Python represents other bytes by lone surrogates
    except UnicodeEncodeError:
        raise typer.BadParameter("This is not valid UTF-8.", context, parameter) from None
    return value if follow is None else follow(context, parameter, value)


def run_command(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status, prints every error and raises none but SystemExit."""
    JSON_PRINTED.set(False)
    debug, as_json = (_has_option(arguments, option) for option in (DEBUG_OPTION, "--json"))
    try:
        status = _invoke(_remove_option(arguments, DEBUG_OPTION))
        with reporting_write_errors("Standard output"):
            sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:
        if debug:
            traceback.print_exc()
        _discard_unwritable_output()
        return _report(error, as_json and not JSON_PRINTED.get())
    return status


@contextmanager
def reporting_write_errors(path: Path | str) -> Iterator[None]:
    """Raise CommandFailed for an OSError, except for a pipe that its reader has closed."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror}.") from error


def _invoke(arguments: list[str]) -> int:
    """Run one command; returns its exit status."""
    try:
        with _root_group().make_context("atalaya", arguments) as context:
            status = context.command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return status if isinstance(status, int) else 0


def _root_group() -> TyperGroup:
    app = typer.Typer(
        help="A secured prediction gateway for aerial images.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_HELP,
    )
    app.callback()(_read_common_options)
    group = typer.main.get_group(app)
    group.commands.update({name: LazyCommand(name, *entry) for name, entry in COMMANDS.items()})
    return group


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"atalaya {version('atalaya')}")
        raise typer.Exit


def _read_common_options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    _debug: Annotated[
        bool, typer.Option(DEBUG_OPTION, help="Show the traceback of an error; allowed after the command, too.")
    ] = False,
) -> None:
    """Declares the options for `--help`; `run_command` reads --debug."""


def _has_option(arguments: Sequence[str], option: str) -> bool:
    return option in arguments[: arguments.index("--")] if "--" in arguments else option in arguments


def _remove_option(arguments: Sequence[str], option: str) -> list[str]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*(argument for argument in arguments[:end] if argument != option), *arguments[end:]]


def _report(error: BaseException, as_json: bool) -> int:
    """Print the error, and with `as_json` a JSON document on standard output too. Returns the exit status."""
    if _is_interrupt(error):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return _BROKEN_PIPE  # the reader has closed the pipe, as `head` does
    if isinstance(error, typer.TyperException):
        return _print_usage_error(error, as_json)
    if isinstance(error, typer.Abort):
        if any(isinstance(each, EOFError) for each in _list_causes(error)):
            error = CommandFailed("The command asks for input, but standard input has ended. Run it in a terminal.")
        else:
            error = CommandFailed("Nothing was changed, because the confirmation was declined.")
    if as_json:
        code, problems = describe_error(error)
        _print_json_error(code, " ".join(problems))
    return print_error(error)


def _print_json_error(code: str, detail: str) -> None:
    print(json.dumps({"error": {"code": code, "detail": detail}}, indent=2))


def _discard_unwritable_output() -> None:
    """If standard output cannot be written, discard what it still holds: Python would report the error at the exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())


def _print_usage_error(error: typer.TyperException, as_json: bool) -> int:
    message = error.format_message().replace("Value error, ", "", 1)  # from pydantic, by which typer parses values
    if message.startswith("Usage:"):  # the command line names no command, and the error holds the help
        print(message, file=sys.stderr)
        return error.exit_code
    if as_json:
        _print_json_error("usage_error", " ".join(message.split()))
    return print_error(message, error.exit_code)


def _is_interrupt(error: BaseException) -> bool:
    """Return whether Ctrl-C led to `error`."""
    return any(isinstance(each, KeyboardInterrupt) or _names_interrupt(each) for each in _list_causes(error))


def _names_interrupt(error: BaseException) -> bool:
    """Return whether `error` is from a library that keeps only the text of a KeyboardInterrupt, as pydantic-core does.

    The messages of all other errors may contain that name because the user has given it.
    """
    is_known = isinstance(error, typer.TyperException) or describe_error(error)[0] != "internal_error"
    return not is_known and "KeyboardInterrupt: " in str(error)


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, and then those that led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _nothing() -> None: ...
