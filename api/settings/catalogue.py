"""The list of all settings. `make settings` writes it to docs/configure.md and .env.example."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from api.settings.gateway import Settings
from api.settings.home import INSTALLATION
from api.settings.railway import RailwaySettings

PAGE = INSTALLATION / "docs" / "configure.md"
EXAMPLE = INSTALLATION / ".env.example"
_MARKER = "<!-- `make settings` writes everything below from api/settings. -->\n"
_EXAMPLE_HEADER = """\
# Every setting with its default; `make settings` writes this file. Copy the lines that you change to .env.
# An environment variable overrides .env. Never commit secrets: `atalaya secrets init` writes the required ones to .env.
# Relative paths start at the folder of this file, or at the one that the environment variable ATALAYA_HOME names.
# More: docs/configure.md
"""
_FORMATS = {"password": "text, secret", "path": "path", "rate": "rate"}
_TYPES = {"boolean": "`true` or `false`", "integer": "whole number", "number": "number", "object": "JSON object"}
_BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to"}
_LINE_LENGTH = 118


class SettingEntry(Struct, frozen=True):
    """One setting. `values` says which are valid, `default` is the value's text and empty for none."""

    name: str
    values: str
    default: str
    description: str


def list_groups() -> Iterator[tuple[str, str, Sequence[SettingEntry]]]:
    """Yield the title, the introduction and the settings of each group: first those without a prefix."""
    groups = {name: kind for name, field in Settings.model_fields.items() if (kind := _find_group(field))}
    railway = list(RailwaySettings.model_fields)
    yield _describe_group(Settings, "", [name for name in Settings.model_fields if name not in (*groups, *railway)])
    yield _describe_group(RailwaySettings, "", railway)
    for name, kind in groups.items():
        yield _describe_group(kind, f"{name}__".upper(), list(kind.model_fields))


def render_tables() -> str:
    """Return the generated part of the page as Markdown."""
    return "".join(
        f"\n## {title}\n{introduction}\n\n| setting | values | default | meaning |\n|---|---|---|---|\n"
        + "".join(map(_render_row, entries))
        for title, introduction, entries in list_groups()
    )


def render_page(page: str) -> str:
    """Return the page with its guide as it is, and current tables below the marker."""
    guide, _, _ = page.partition(_MARKER)
    return guide + _MARKER + render_tables()


def render_example() -> str:
    """Return the text of .env.example."""
    blocks = (f"# {title}\n" + "".join(map(_render_line, entries)) for title, _, entries in list_groups())
    return "\n".join((_EXAMPLE_HEADER, *blocks))


def _find_group(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _describe_group(kind: type[BaseModel], prefix: str, names: Sequence[str]) -> tuple[str, str, list[SettingEntry]]:
    schema = kind.model_json_schema()
    entries = [
        SettingEntry(
            f"{prefix}{name}".upper(),
            _describe_values(schema["properties"][name], schema.get("$defs", {})),
            _format_value(kind.model_fields[name].get_default(call_default_factory=True)),
            kind.model_fields[name].description or "",
        )
        for name in names
    ]
    return str(kind.model_config.get("title")), inspect.getdoc(kind) or "", entries


def _describe_values(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Describe in words the values that a JSON schema allows, as they are written in the environment."""
    if "anyOf" in schema:
        schema = next(each for each in schema["anyOf"] if each["type"] != "null")
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "enum" in schema:
        *others, last = (f"`{value}`" for value in schema["enum"])
        return f"{', '.join(others)} or {last}"
    if schema["type"] == "string":
        return _FORMATS.get(schema.get("format", ""), "text")
    if schema["type"] == "array":
        return "JSON list" if "$ref" in schema["items"] else "list, separated by commas"
    bounds = "".join(f" {word} {_format_value(schema[key])}" for key, word in _BOUNDS.items() if key in schema)
    return _TYPES[schema["type"]] + bounds


def _format_value(value: object) -> str:
    """Write a default as in the environment."""
    match value:
        case None | ():
            return ""
        case SecretStr():
            return value.get_secret_value()
        case Enum():
            return str(value.value)
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
    return str(value)


def _render_row(entry: SettingEntry) -> str:
    default = f"`{entry.default}`" if entry.default else ""
    meaning = entry.description.replace("|", "\\|")
    return f"| `{entry.name}` | {entry.values} | {default} | {meaning} |\n"


def _render_line(entry: SettingEntry) -> str:
    """Return the setting with its meaning as a comment, where a link to a page becomes the page's path."""
    meaning = re.sub(r"\[([^]]+)\]\(#[^)]+\)", r"\1", entry.description)
    meaning = re.sub(r"\[([^]]+)\]\(([^#)]+)[^)]*\)", r"\1 (docs/\2)", meaning)
    comment = textwrap.fill(f"{meaning} [{entry.values}]", _LINE_LENGTH, break_long_words=False, break_on_hyphens=False)
    return textwrap.indent(comment, "# ") + f"\n{entry.name}={entry.default}\n"


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    EXAMPLE.write_text(render_example(), encoding="utf-8")
