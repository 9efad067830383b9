"""Keep a gateway busy with hashing passwords, and check that other users can log in meanwhile.

    python -m tests.experiments.logins [--seconds 10]

Prints one line for each kind of attack. Exit status 0 if every login of the other users succeeded in time; 1
otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.support.login_load import attack, attacked_gateway, list_attacks


def run(seconds: float) -> list[str]:
    """Print the results of each attack and return the aims that were missed."""
    missed = []
    with attacked_gateway() as gateway:
        for description, make_request in list_attacks(gateway).items():
            results = asyncio.run(attack(gateway.port, make_request, seconds))
            success = "FAILED" if results.missed else "ok"
            logins = f"{results.others[200]} of {results.others.total()} logins, slowest {results.slowest_s:.2f} s"
            print(f"{description:<36}{logins}; attackers: {dict(results.attackers)}   {success}", flush=True)
            missed += [f"{description}: {aim}" for aim in results.missed]
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    missed = run(parser.parse_args().seconds)
    for aim in missed:
        print(f"missed: {aim}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
