"""`GET /v1/labels`: what the model in service can predict."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from starlette.requests import Request

from api.deps import Caller, get_services
from api.http.problems import document_problems
from api.routes.negotiation import choose_language
from api.schemas.labels import LabelList
from auth.principal import Scope
from model.display_names import LANGUAGES

_AcceptLanguage = Annotated[
    str, Header(description="the languages of `display_name`: English (`en`) or Spanish (`es`)")
]

router = APIRouter(
    tags=["predictions"],
    responses=document_problems(401, 403, 503),
    dependencies=[Depends(Caller(Scope.PREDICT))],
)


@router.get("/v1/labels")
async def list_labels(request: Request, response: Response, accept_language: _AcceptLanguage = "") -> LabelList:
    """The classes of the model in service, in the order of its outputs, with their names for people.

    Programs should use `label`, which is the same in every language.
    """
    language = choose_language(accept_language, LANGUAGES)
    response.headers.update({"Content-Language": language, "Vary": "Accept-Language"})
    return LabelList.of(get_services(request).serving.predictions.model, language)
