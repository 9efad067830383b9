"""How many bytes the network interfaces have sent."""

from __future__ import annotations

from pathlib import Path

_DEVICES = Path("/proc/net/dev")
_SENT_COLUMN = 8  # after the name: eight columns of what was received, then bytes sent


def read_sent_bytes(devices: Path = _DEVICES) -> int:
    """Return the bytes sent by all interfaces of this network namespace except the loopback; 0 if not reported."""
    try:
        lines = devices.read_text().splitlines()[2:]  # after two lines of headings
    except OSError:
        return 0
    counts = {name.strip(): numbers.split() for name, _, numbers in (line.partition(":") for line in lines)}
    return sum(int(numbers[_SENT_COLUMN]) for name, numbers in counts.items() if name != "lo")
