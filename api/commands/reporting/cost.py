"""`atalaya cost`: what the predictions of a month cost, by caller, and what the alternatives would cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from msgspec import to_builtins
from msgspec.structs import asdict

from api.commands.database import open_migrated_engine, recorded_run, run_with_engine
from api.commands.models.quality.live_sums import update_sums
from api.commands.output import JsonFlag, print_json, print_table, print_wrapped
from api.commands.reporting.month_cost import compute_costs
from api.settings import Settings, load_settings
from auth.accounts.store import UserStore
from monitoring.cost.formula import Amounts, Resources
from monitoring.cost.month import Cost, MonthCost
from monitoring.cost.scenarios import HOURS_IN_MONTH, Machine
from monitoring.tasks.runs import Task


def parse_month(text: str) -> str:
    """Check a month such as 2026-11. Raises BadParameter."""
    try:
        return f"{datetime.strptime(text, '%Y-%m').replace(tzinfo=UTC):%Y-%m}"
    except ValueError:
        raise typer.BadParameter(f"{text} is not a month such as 2026-11.") from None


def cost(
    month: Annotated[
        str | None,
        typer.Option(parser=parse_month, metavar="MONTH", help="Such as 2026-11. Default: this month, UTC."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what the predictions of a month cost, by caller, and what the alternatives would cost."""
    settings = load_settings()
    with recorded_run(Task.COST):
        month_cost = read_month_cost(settings, month or f"{datetime.now(UTC):%Y-%m}")
        names = run_with_engine(settings, lambda engine: UserStore(engine).list())
    callers = {user.id: user.name for user in names}
    if as_json:
        print_json(_describe(month_cost, callers))
    else:
        _print(month_cost, callers)


def read_month_cost(settings: Settings, month: str) -> MonthCost:
    """Return the costs of a month from all that is recorded so far. Raises LedgerUnavailable, DatabaseMissing."""
    with open_migrated_engine(settings) as engine:
        update_sums(settings, engine)
        (month_cost,) = compute_costs(settings, engine, [month])
    return month_cost


def _print(month_cost: MonthCost, names: Mapping[str, str]) -> None:
    typer.echo(f"{month_cost.month}, prices in {month_cost.currency}")
    costs = sorted(month_cost.callers.items(), key=lambda pair: -pair[1].amounts.total)
    print_table(
        ("caller", "predictions", "CPU s", "memory GB h", "received MB", "sent MB", "cost", "per 1,000"),
        [
            _format_cost("all", month_cost.whole, month_cost.measured_share),
            *(_format_cost(names.get(caller, caller), each, month_cost.measured_share) for caller, each in costs),
        ],
    )
    if not month_cost.measured_hours:
        typer.echo("No gateway measured its resources in this month, so the cost is unknown.")
        return
    if month_cost.measured_share < 1:
        percent = f"{100 * month_cost.measured_share:.1f} %"
        note = f"Resources were measured for {percent} of the predictions. The cost covers only these."
        print_wrapped(note)
    print_wrapped(_describe_sleep(month_cost))
    typer.echo(f"\nReserved machines, for {HOURS_IN_MONTH} hours, with the load of the busiest hour")
    print_table(
        ("machine", "price", "processor %", "memory %", ""),
        [
            (
                _format_machine(each.machine),
                f"{each.reserved:.2f}",
                f"{100 * each.processor_load:.1f}",
                f"{100 * each.memory_load:.1f}",
                "" if each.fits else "too small",
            )
            for each in month_cost.machines
        ],
    )


def _describe_sleep(month_cost: MonthCost) -> str:
    if month_cost.sleep is None:
        return "Requests are not recorded (LEDGER__ENABLED=false), so what sleeping would have saved is unknown."
    idle_hours, saves = month_cost.sleep.idle_hours, month_cost.sleep.saves
    return (
        f"{idle_hours} of {month_cost.measured_hours} measured hours had no request. Sleeping in them would have "
        f"saved {saves.total:.2f} {month_cost.currency} ({_format_share(saves, month_cost.whole.amounts)})."
    )


def _format_cost(name: str, cost: Cost, measured_share: float) -> tuple[str, ...]:
    used, amount, paid = cost.resources, cost.amounts.total, cost.traffic.predictions * measured_share
    return (
        name,
        str(round(cost.traffic.predictions)),
        f"{used.processor_s:.1f}",
        f"{used.memory_gb_s / 3600:.3f}",
        f"{cost.traffic.received_bytes / 1e6:.1f}",
        f"{used.sent_bytes / 1e6:.1f}",
        f"{amount:.4f}",
        f"{1000 * amount / paid:.4f}" if paid else "",
    )


def _format_share(part: Amounts, whole: Amounts) -> str:
    return f"{100 * part.total / whole.total:.1f} %" if whole.total else "0 %"


def _format_machine(machine: Machine) -> str:
    return f"{machine.vcpus:g} vCPU, {machine.memory_gb:.2f} GB"


def _describe(month_cost: MonthCost, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "month": month_cost.month,
        "currency": month_cost.currency,
        "measured_hours": month_cost.measured_hours,
        "measured_share": month_cost.measured_share,
        **_describe_cost(month_cost.whole),
        "callers": [
            {"caller": caller, "name": names.get(caller), **_describe_cost(each)}
            for caller, each in month_cost.callers.items()
        ],
        "sleep": month_cost.sleep
        and {"idle_hours": month_cost.sleep.idle_hours, "saves": month_cost.sleep.saves.total},
        "machines": [{**to_builtins(each), "fits": each.fits} for each in month_cost.machines],
    }


def _describe_cost(cost: Cost) -> dict[str, Any]:
    return {
        "predictions": round(cost.traffic.predictions),
        "received_bytes": round(cost.traffic.received_bytes),
        "resources": _describe_resources(cost.resources),
        "cost": {**asdict(cost.amounts), "total": cost.amounts.total},
    }


def _describe_resources(resources: Resources) -> dict[str, float]:
    return {**asdict(resources), "sent_bytes": round(resources.sent_bytes)}
