"""Reads the settings, and reports all problems with them at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from api.errors import SettingsError
from api.settings.gateway import Settings
from api.settings.reading.names import find_mistyped, list_names, list_secret_names
from api.settings.reading.problems import describe_problem
from api.settings.reading.variables import (
    clean_variables,
    parse_env_text,
    read_env_file_state,
    read_env_text,
    read_environment,
    read_variables,
)
from api.settings.secrets.provider import open_provider
from api.settings.secrets.settings import SecretSettings

FindProblems = Callable[[Settings], Sequence[str]]
_Location = tuple[int | str, ...]


def load_settings(find_problems: FindProblems | None = None, **overrides: Any) -> Settings:
    """Read the settings, and print a warning on standard error for each name that is probably mistyped.

    `overrides` are values that the command line sets. Raises SettingsError with all problems, each in one line that
    names the setting but not its value; `find_problems` adds those that are found in valid settings.
    """
    variables = read_variables()
    for warning in find_mistyped(variables):
        print(f"warning: {warning}", file=sys.stderr)
    return _build(_with_stored_secrets(variables), find_problems or _find_none, overrides)


def reload_settings(find_problems: FindProblems | None = None, **overrides: Any) -> Settings:
    """Read the settings again, without warnings. Raises SettingsError, SecretsUnavailable."""
    return _build(_with_stored_secrets(read_variables()), find_problems or _find_none, overrides)


def is_set_in_env_file(name: str) -> bool:
    """Return whether `.env` sets a secret, and neither the environment nor the provider overrides it.

    Raises SettingsError.
    """
    overriding = {**read_environment(), **_read_stored_secrets(read_variables())}
    return name in parse_env_text(read_env_text()) and name not in overriding


def load_local_settings() -> Settings:
    """Read the settings without the provider of secrets, for commands that need none.

    A health check must not fail, and restart the gateway, because the provider is unavailable. Raises SettingsError.
    """
    return _build(read_variables(), _find_none, {})


class SettingsReader:
    """Reads the settings of a running gateway repeatedly. Not thread-safe.

    `find_problems` is used as in `load_settings`. `interval_s` is the time between two reads, in seconds.
    """

    def __init__(self, settings: Settings, find_problems: FindProblems) -> None:
        self._provider = open_provider(settings.secrets)
        self._find_problems = find_problems
        self._seen: object = None  # makes the first `read` build the settings: `.env` may have changed since
        self._result: Settings | SettingsError = settings
        self.interval_s = self._provider.interval_s

    def read(self) -> Settings:
        """Return the current settings, which are the same object until a secret or `.env` changes.

        Raises SecretsUnavailable if the provider cannot be read, and another SettingsError if a value is unusable.
        """
        stored = _select_secrets(self._provider.read())
        seen = read_env_file_state(), stored
        if seen != self._seen:
            try:
                self._result = _build({**read_variables(), **stored}, self._find_problems, {})
            except SettingsError as error:
                self._result = error
            self._seen = seen
        if isinstance(self._result, SettingsError):
            raise SettingsError(*self._result.problems)
        return self._result


def _with_stored_secrets(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Add the secrets of the provider, which override the variables. Raises SettingsError."""
    return {**variables, **_read_stored_secrets(variables)}


def _read_stored_secrets(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Return the secrets of the provider that the variables name. Raises SettingsError."""
    try:
        secrets = SecretSettings.model_validate(_nest(variables).get("secrets", {}))
    except ValidationError:
        return {}  # reported with the problems of all other settings
    return _select_secrets(open_provider(secrets).read())


def _select_secrets(stored: Mapping[str, str]) -> dict[str, str]:
    """Return only the values of secret settings: write access to the secrets must not change other settings."""
    values = clean_variables(stored)
    return {name: values[name] for name in list_secret_names() if name in values}


def _find_none(_: Settings) -> Sequence[str]:
    return ()


def _build(variables: Mapping[str, str], find_problems: FindProblems, overrides: Mapping[str, Any]) -> Settings:
    """Raises SettingsError."""
    garbled = [name for name in list_names() if not _is_text(variables.get(name, ""))]
    problems = [f"{name}: is not UTF-8 text." for name in garbled]
    values = _nest({name: value for name, value in variables.items() if name not in garbled})
    settings, locations, invalid_values = _validate({**values, **overrides})
    problems += invalid_values
    if settings is None:
        # Check the other settings as if the invalid ones were not set, to report everything at once.
        settings = Settings.model_validate(_remove({**values, **overrides}, locations))
    # Leave out problems that mention an invalid setting: they may result from the default that replaced its value.
    invalid = {*garbled, *("__".join(map(str, location[:2])).upper() for location in locations)}
    problems += [problem for problem in find_problems(settings) if not _find_names(problem) & invalid]
    if problems:
        raise SettingsError(*problems)
    return settings


def _validate(values: Mapping[str, Any]) -> tuple[Settings | None, Sequence[_Location], list[str]]:
    """Return the settings, or else the locations of the invalid values and what is wrong with them."""
    try:
        return Settings.model_validate(values), (), []
    except ValidationError as error:
        problems: dict[_Location, str] = {}
        for entry in error.errors(include_input=False, include_url=False):
            location = entry["loc"]
            # A list whose items are all invalid is also reported as empty.
            if not any(earlier[: len(location)] == location for earlier in problems):
                problems[location] = describe_problem(entry)
        return None, list(problems), list(problems.values())


def _nest(variables: Mapping[str, str]) -> dict[str, Any]:
    """Assign the variables to settings and groups; other variables are left out.

    A variable with the bare name of a group, which platforms may set for purposes of their own, is left out too.
    """
    groups = {name.partition("__")[0].lower() for name in list_names() if "__" in name}
    values: dict[str, Any] = {}
    for variable, value in variables.items():
        name, _, member = variable.lower().partition("__")
        if name in groups and member:
            values.setdefault(name, {})[member] = value
        elif not member and name in Settings.model_fields and name not in groups:
            values[name] = value
    return values


def _remove(values: Mapping[str, Any], locations: Iterable[_Location]) -> dict[str, Any]:
    """Return the values without those at the locations."""
    remaining = {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
    for location in locations:
        match location:
            case (group, name, *_) if isinstance(remaining.get(str(group)), dict):
                remaining[str(group)].pop(name, None)
            case (name, *_):
                remaining.pop(str(name), None)
    return remaining


def _is_text(value: str) -> bool:
    """Return whether the value was valid UTF-8. Python keeps other bytes as surrogates, which cannot be encoded."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _find_names(problem: str) -> set[str]:
    """Return the settings that a line mentions."""
    return set(re.findall(r"[A-Z][A-Z0-9_]+", problem))
