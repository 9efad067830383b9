"""How routes document their refusals in OpenAPI."""

from __future__ import annotations

from typing import Any

from api.schemas.problems import Problem

Responses = dict[int | str, dict[str, Any]]


def document_problems(*statuses: int) -> Responses:
    """The `responses` of a route that refuses requests with these statuses, each as a problem document."""
    return {status: {"model": Problem, "content": {"application/problem+json": {}}} for status in statuses}
