"""The responses about usage and cost."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from api.prediction.quotas import CostEstimate
from api.schemas.base import ResponseBody
from auth.quotas.tallies import PIXELS_IN_MEGAPIXEL, Limits, Tally
from monitoring.cost.month import Cost


class Amounts(ResponseBody):
    requests: int
    megapixels: float = Field(description="1,000,000 pixels each")


class Bounds(ResponseBody):
    """`null` means unlimited."""

    requests: int | None
    megapixels: float | None

    @classmethod
    def of(cls, limits: Limits) -> Bounds:
        requests, pixels = limits
        return cls(requests=requests, megapixels=None if pixels is None else pixels / PIXELS_IN_MEGAPIXEL)


class KeyUsage(Amounts):
    limits: Bounds
    remaining: Bounds

    @classmethod
    def of_tally(cls, tally: Tally) -> KeyUsage:
        return cls(
            requests=tally.requests,
            megapixels=tally.pixels / PIXELS_IN_MEGAPIXEL,
            limits=Bounds.of(tally.limits),
            remaining=Bounds.of(tally.remaining),
        )


class CostResponse(ResponseBody):
    """The caller's share of what the gateway used in the hours for which it was measured."""

    currency: str = Field(description="ISO 4217 code of COST__CURRENCY")
    amount: float
    processor_seconds: float
    memory_gb_seconds: float
    received_bytes: int = Field(description="of images")
    sent_bytes: int

    @classmethod
    def of(cls, cost: Cost, currency: str) -> CostResponse:
        return cls(
            currency=currency,
            amount=cost.amounts.total,
            processor_seconds=cost.resources.processor_s,
            memory_gb_seconds=cost.resources.memory_gb_s,
            received_bytes=round(cost.traffic.received_bytes),
            sent_bytes=round(cost.resources.sent_bytes),
        )


class UsageResponse(KeyUsage):
    month: str = Field(description="the calendar month in UTC, for example 2026-11")
    resets_at: datetime
    cost: CostResponse = Field(description="of the account's recorded predictions until about a minute ago")
    key: KeyUsage | None = Field(description="the usage of the API key that authenticates this request")


class DryRunResponse(ResponseBody):
    cost: Amounts
    remaining: Bounds = Field(description="before the cost; the smaller of the account's and the API key's")

    @classmethod
    def of(cls, estimate: CostEstimate) -> DryRunResponse:
        cost = Amounts(requests=1, megapixels=estimate.pixels / PIXELS_IN_MEGAPIXEL)
        return cls(cost=cost, remaining=Bounds.of(estimate.remaining))
