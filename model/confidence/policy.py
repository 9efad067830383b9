"""What the gateway does when its model abstains. A separate module, so that the settings need not import NumPy."""

from __future__ import annotations

from enum import StrEnum


class AbstentionPolicy(StrEnum):
    OFF = "off"  # never abstain
    MARK = "mark"  # return the prediction, with the reason for abstaining
    REFUSE = "refuse"  # return an error instead of the prediction
