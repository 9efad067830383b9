"""Simulate many gateways in front of engines, and show what saturates first.

    python -m bench.scale.simulate [--rate 10000] [--gateways 200] [--engines 50] [--seconds 2]

The costs are those of bench/scale/measured.json. The first table compares one simulated gateway with the measured one.
The second table offers a growing rate to a deployment, and the third offers the full rate to changed deployments.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.scale.cluster import Cluster, Deployment
from bench.scale.costs import Costs, Observation, read_costs
from bench.scale.events import Station

SATURATED = 0.97
COMPLETED = 0.9  # with a smaller share, requests have waited; some are always still in progress at the end
WARM_UP = 0.25  # the share of the requests that is left out because the queues are still growing
DEFAULT = Deployment()
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Run:
    """The latencies of a simulated deployment, and the utilisation of its parts, from 0 to 1."""

    name: str
    completed: float  # of the requests that have arrived, from 0 to 1
    p50_ms: float
    p99_ms: float
    gateways: float
    engines: float
    redis: float
    database: float

    @property
    def limit(self) -> str:
        """The saturated part; "rows" if requests wait although no part is saturated; otherwise ""."""
        parts = {"gateways": self.gateways, "engines": self.engines, "Redis": self.redis, "PostgreSQL": self.database}
        busiest = max(parts, key=parts.__getitem__)
        if parts[busiest] >= SATURATED:
            return busiest
        return "rows" if self.completed < COMPLETED else ""


def simulate(name: str, deployment: Deployment, costs: Costs, rate: float, seconds: float) -> Run:
    cluster = Cluster(deployment, costs)
    cluster.offer(rate, seconds)
    latencies = cluster.latencies[int(len(cluster.latencies) * WARM_UP) :]
    percentiles = statistics.quantiles(latencies, n=100)
    return Run(
        name,
        len(cluster.latencies) / (rate * seconds),
        percentiles[49] * 1000,
        percentiles[98] * 1000,
        _utilisation(cluster.gateways),
        _utilisation(cluster.engines),
        cluster.redis.utilisation,
        _utilisation(cluster.databases),
    )


def _utilisation(stations: list[Station]) -> float:
    return statistics.mean(station.utilisation for station in stations)


def reproduce(costs: Costs, observation: Observation, seconds: float = 10.0) -> float:
    """Return the simulated rate, in requests per second, of the gateway that was measured without inference."""
    cluster = Cluster(Deployment(gateways=1, engines=1, callers=1), replace(costs, inference_s=[0.0]))
    cluster.send_repeatedly(observation.connections, seconds, observation.caller_s)
    return len(cluster.latencies) / seconds


def format_reproductions(costs: Costs) -> list[str]:
    lines = (
        f"{f'{seen.connections} connections':<27}{seen.rate:>8.0f}/s{reproduce(costs, seen):>10.0f}/s"
        for seen in costs.observations
    )
    return [f"{'one gateway':<27}{'measured':>10}{'simulated':>12}", *lines]


def list_changes(deployment: Deployment) -> Iterator[tuple[str, Deployment]]:
    """Yield the changes that an operator could make, each with its name."""
    cores = deployment.database_cores
    yield f"{cores * 2} cores for PostgreSQL", replace(deployment, database_cores=cores * 2)
    yield f"{cores * 4} cores for PostgreSQL", replace(deployment, database_cores=cores * 4)
    fewer = replace(deployment, gateways=deployment.gateways // 4)
    yield f"{fewer.gateways} gateways", fewer
    yield "4 databases", replace(deployment, databases=4)
    yield "one caller", replace(deployment, databases=4, callers=1)


def format_runs(runs: list[Run]) -> list[str]:
    heading = (
        f"{'':<27}{'done':>6}{'p50':>9}{'p99':>9}{'gateways':>10}{'engines':>9}{'Redis':>7}{'PostgreSQL':>12}  limit"
    )
    lines = (
        f"{run.name:<27}{run.completed:>6.0%}{run.p50_ms:>6.0f} ms{run.p99_ms:>6.0f} ms"
        f"{run.gateways:>10.0%}{run.engines:>9.0%}{run.redis:>7.0%}{run.database:>12.0%}  {run.limit}".rstrip()
        for run in runs
    )
    return [heading, *lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=10_000, help="requests in a second")
    parser.add_argument("--gateways", type=int, default=DEFAULT.gateways)
    parser.add_argument("--engines", type=int, default=DEFAULT.engines)
    parser.add_argument("--engine-slots", type=int, default=DEFAULT.engine_slots)
    parser.add_argument("--database-cores", type=int, default=DEFAULT.database_cores)
    parser.add_argument("--callers", type=int, default=DEFAULT.callers)
    parser.add_argument("--seconds", type=float, default=2)
    options = vars(parser.parse_args())
    rate, seconds, costs = options.pop("rate"), options.pop("seconds"), read_costs()
    deployment = Deployment(**options)
    print(*format_reproductions(costs), "", sep="\n", flush=True)
    growing = [simulate(f"{rate * s:.0f}/s", deployment, costs, rate * s, seconds) for s in SHARES]
    print(*format_runs(growing), sep="\n", flush=True)
    changed = [simulate(name, changed, costs, rate, seconds) for name, changed in list_changes(deployment)]
    print("", *format_runs(changed), sep="\n")


if __name__ == "__main__":
    main()
