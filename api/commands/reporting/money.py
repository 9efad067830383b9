"""The section about costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from api.commands.reporting.charts import Charts
from api.commands.reporting.document import Report
from api.commands.reporting.layout import NOTHING, Section, Table, Translate
from monitoring.cost.formula import Prices
from monitoring.cost.month import MonthCost

_MAX_CALLERS = 20
_MACHINE_HEADS = ("machine", "price", "processor_load", "memory_load", "fits")


def build_cost(report: Report, prices: Prices, charts: Charts, t: Translate) -> Section:
    currency = prices.currency
    section = Section(
        "cost",
        t("cost"),
        [t("cost.text", vcpu=prices.vcpu_hour, gb=prices.gb_hour, sent=prices.sent_gb, currency=currency)],
    )
    measured = [month for month in report.costs if month.measured_hours]
    if not measured:
        section.missing.append(t("cost.missing"))
        return section
    parts = ("processor", "memory", "sent")
    series = {t(part): [getattr(month.whole.amounts, part) for month in measured] for part in parts}
    section.add_chart(t("cost.chart", currency=currency), charts.draw_stack([each.month for each in measured], series))
    heads = ("month", *parts, "total", "per_thousand")
    rows = [_format_month(month) for month in measured]
    section.tables.append(Table(t("cost.table", currency=currency), [t(head) for head in heads], rows))
    callers = _list_callers(measured, report.names)
    section.add_table(Table(t("cost.callers", currency=currency), [t("caller"), t("total")], callers))
    section.tables.append(_compare_machines(measured[-1], currency, t))
    _add_partial_months(section, measured, t)
    _add_sleep(section, measured, currency, t)
    return section


def _add_partial_months(section: Section, months: Sequence[MonthCost], t: Translate) -> None:
    for month in months:
        if month.measured_share < 1:
            percent = f"{100 * month.measured_share:.1f}"
            section.missing.append(t("cost.partial", month=month.month, percent=percent))


def _add_sleep(section: Section, months: Sequence[MonthCost], currency: str, t: Translate) -> None:
    """Add what sleeping in the idle hours would have saved."""
    sleeps = [month.sleep for month in months if month.sleep is not None]
    if sleeps:
        hours = sum(month.measured_hours for month in months)
        idle, saved = sum(sleep.idle_hours for sleep in sleeps), sum(sleep.saves.total for sleep in sleeps)
        section.notes.append(t("cost.sleep", idle=idle, measured=hours, saved=f"{saved:.2f}", currency=currency))
    else:
        section.missing.append(t("cost.no_sleep"))


def _format_month(month: MonthCost) -> Sequence[str]:
    amounts, paid = month.whole.amounts, month.whole.traffic.predictions * month.measured_share
    per_thousand = f"{1000 * amounts.total / paid:.4f}" if paid else NOTHING
    numbers = amounts.processor, amounts.memory, amounts.sent, amounts.total
    return month.month, *(f"{number:.2f}" for number in numbers), per_thousand


def _list_callers(months: Sequence[MonthCost], names: Mapping[str, str]) -> list[Sequence[str]]:
    totals = defaultdict[str, float](float)
    for month in months:
        for caller, cost in month.callers.items():
            totals[caller] += cost.amounts.total
    ordered = sorted(totals.items(), key=lambda pair: -pair[1])[:_MAX_CALLERS]
    return [(names.get(caller, caller), f"{total:.2f}") for caller, total in ordered]


def _compare_machines(month: MonthCost, currency: str, t: Translate) -> Table:
    rows = [
        (
            f"{each.machine.vcpus:g} vCPU, {each.machine.memory_gb:.2f} GB",
            f"{each.reserved:.2f}",
            f"{100 * each.processor_load:.1f}",
            f"{100 * each.memory_load:.1f}",
            t("yes") if each.fits else t("no"),
        )
        for each in month.machines
    ]
    heads = [t(head, currency=currency) for head in _MACHINE_HEADS]
    return Table(t("cost.machines", month=month.month), heads, rows)
