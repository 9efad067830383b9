"""What a gateway does when its model abstains. Apart from the rules, because the settings load no NumPy."""

from __future__ import annotations

from enum import StrEnum


class AbstentionPolicy(StrEnum):
    OFF = "off"  # never abstain
    MARK = "mark"  # return the prediction, with the reason for not relying on it
    REFUSE = "refuse"  # return an error instead of the prediction
