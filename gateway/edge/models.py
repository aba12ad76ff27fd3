"""``/v1/models``: what a caller may use, in the form of its dialect.

Who sends ``anthropic-version`` is told in the form of the Anthropic API, in pages; everybody else in OpenAI's, whole.

Sources: https://platform.openai.com/docs/api-reference/models/list, https://platform.claude.com/docs/en/api/models-list
"""

from __future__ import annotations

import datetime
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query
from fastapi.routing import APIRoute

from gateway.edge import message_schemas, schemas
from gateway.edge.call import Scope
from gateway.edge.documented import ERRORS, LOOKUP_ERRORS, TheCall
from gateway.errors import ModelNotFound
from gateway.model import Scenario
from gateway.pipeline import Pipeline

PATH = "/v1/models"
PAGE_MAX = 1000
"""Models on a page, as the Anthropic API has it; 20 unless the caller says another number."""

_VERSION_HEADER = b"anthropic-version"

_TOLD: dict[int | str, dict[str, Any]] = {
    status: {**told, "model": schemas.ErrorBody | message_schemas.MessagesError}
    for status, told in {404: ERRORS[404], **LOOKUP_ERRORS}.items()
}
"""How a look-up may fail, in either form."""

Version = Annotated[str | None, Header(alias="anthropic-version", description="Asks for the form of Anthropic's API.")]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Models on a page of Anthropic's form.")]
Before = Annotated[str | None, Query(description="The page that ends before this model, in Anthropic's form.")]
After = Annotated[str | None, Query(description="The page that begins after this model, in Anthropic's form.")]


def is_of_anthropic(scope: Scope) -> bool:
    """Whether a request for models is of a client of the Anthropic API."""
    path: str = scope["path"]
    return path.startswith(PATH) and any(name == _VERSION_HEADER for name, _ in scope["headers"])


def add_models(app: FastAPI, pipeline: Pipeline) -> None:
    """Add the list and its members to the FastAPI application of the data port."""

    @app.get(
        PATH,
        summary="Models",
        tags=["inference"],
        responses={status: told for status, told in _TOLD.items() if status != 404},
    )
    async def models(
        call: TheCall, version: Version = None, limit: Limit = 20, before_id: Before = None, after_id: After = None
    ) -> schemas.ModelList | message_schemas.ModelPage:
        """What this key may use as `model`."""
        names = await pipeline.models(call.head.credentials, call.record)
        if version is None:
            return schemas.ModelList(data=[_card(name, scenario) for name, scenario in names.items()])
        return page_of(names, limit, before_id, after_id)

    @app.get(
        PATH + "/{model:path}",
        summary="One model",
        tags=["inference"],
        responses=_TOLD,
    )
    async def model(
        model: str, call: TheCall, version: Version = None
    ) -> schemas.ModelCard | message_schemas.ModelInfo:
        """Whether this key may use a name as `model`."""
        scenario = (await pipeline.models(call.head.credentials, call.record)).get(model)
        if scenario is None:
            raise ModelNotFound(model)
        return _card(model, scenario) if version is None else _info(model, scenario)

    for route in app.routes:
        if isinstance(route, APIRoute) and route.path.endswith("{model:path}"):
            route.path_regex = re.compile(f"^{PATH}/(?P<model>.+)$")  # a name may hold slashes but not be empty


def page_of(
    names: Mapping[str, Scenario], limit: int, before_id: str | None, after_id: str | None
) -> message_schemas.ModelPage:
    """A page of sorted names: the first ones, those that follow ``after_id``, or the last ones before ``before_id``.

    Neither has to be there: models come and go while a client turns the pages.
    """
    found = list(names)
    start = 0 if after_id is None else bisect_right(found, after_id)
    end = len(found) if before_id is None else max(bisect_left(found, before_id), start)
    has_more = end - start > limit
    if before_id is not None and after_id is None:
        start = max(start, end - limit)
    shown = found[start : min(end, start + limit)]
    return message_schemas.ModelPage(
        data=[_info(name, names[name]) for name in shown],
        has_more=has_more,
        first_id=shown[0] if shown else None,
        last_id=shown[-1] if shown else None,
    )


def _card(name: str, scenario: Scenario) -> schemas.ModelCard:
    return schemas.ModelCard(id=name, created=scenario.created)


def _info(name: str, scenario: Scenario) -> message_schemas.ModelInfo:
    created = datetime.datetime.fromtimestamp(scenario.created, datetime.UTC)
    return message_schemas.ModelInfo(id=name, display_name=name, created_at=created)
