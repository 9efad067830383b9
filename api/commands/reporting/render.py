"""Writes a report as one self-contained HTML file, without scripts, fonts or requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from api.commands.reporting.document import Recommendation, Report
from api.commands.reporting.layout import Translate
from api.commands.reporting.sections import build_sections
from monitoring.cost.formula import Prices

_HERE = Path(__file__).parent


class Language(StrEnum):
    ENGLISH = "en"
    SPANISH = "es"


def read_texts(language: Language) -> Mapping[str, str]:
    """Return the texts of a language by key. Names in braces are placeholders for values."""
    texts: Mapping[str, str] = json.loads((_HERE / "texts" / f"{language}.json").read_text(encoding="utf-8"))
    return texts


def render_report(report: Report, prices: Prices, language: Language) -> str:
    """Return the HTML document. Names that callers or administrators have chosen are escaped.

    Lone surrogates in such names, which UTF-8 cannot encode, are replaced by "?".
    """
    texts = read_texts(language)

    def translate(key: str, **values: object) -> str:
        return texts[key].format(**values)

    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    environment.filters["code"] = _mark_code
    page = environment.get_template("report.html").render(
        lang=language.value,
        report=report,
        t=translate,
        start=f"{report.quarter.start:%Y-%m-%d}",
        end=f"{report.quarter.last_day:%Y-%m-%d}",
        written_at=f"{report.generated_at:%Y-%m-%d}",
        recommendations=[
            {part: translate(f"{each.rule}.{part}", **_name_metrics(each, translate)) for part in ("action", "reason")}
            for each in report.recommendations
        ],
        sections=build_sections(report, prices, translate),
    )
    return page.encode(errors="replace").decode()


def _name_metrics(recommendation: Recommendation, t: Translate) -> Mapping[str, object]:
    """Return the values of a recommendation with the names of its metrics in the language of the report."""
    return {
        name: ", ".join(t(f"metric.{metric}") for metric in value) if isinstance(value, tuple) else value
        for name, value in recommendation.values.items()
    }


def _mark_code(text: str) -> Markup:
    """Escape a text, and mark the parts between backticks as code."""
    marked = Markup()  # escapes the text that is added to it
    for number, part in enumerate(text.split("`")):
        marked += Markup("<code>{}</code>").format(part) if number % 2 else part
    return marked
