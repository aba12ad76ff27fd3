"""``/v1/scenarios``: for callers who know a scenario and what it wants, and nothing of messages.

``POST /v1/scenarios/{name}`` is a chat completion in everything but its body, and plain ASGI like it. The list is what
this caller may use, with the variables of each as a JSON Schema.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.routing import APIRoute

from gateway.dialects.openai.request import read_scenario_request
from gateway.edge import schemas
from gateway.edge.call import Call
from gateway.edge.chat import ChatCompletions
from gateway.edge.documented import ERRORS, LOOKUP_ERRORS, TheCall, completion_responses, serve_with
from gateway.errors import MethodNotAllowed, ModelNotFound
from gateway.model import PROMPT_INPUT, ChatRequest, Scenario
from gateway.pipeline import Pipeline

PATH = "/v1/scenarios"
PREFIX = PATH + "/"
_ONE = PREFIX + "{name:path}"


class ScenarioCompletions(ChatCompletions):
    """``POST /v1/scenarios/{name}`` as an ASGI application."""

    def handle(self, call: Call) -> Awaitable[None]:
        """Answer one call; to be awaited at once. Raises MethodNotAllowed."""
        if call.scope["method"] != "POST":
            raise MethodNotAllowed("Use GET or POST here.", allow="GET, HEAD, POST")
        name: str = call.scope["path"].removeprefix(PREFIX)

        def read(body: bytes) -> ChatRequest:
            return read_scenario_request(body, self.max_fields, name)

        return self.complete(call, read)


def add_scenarios(app: FastAPI, pipeline: Pipeline, endpoint: ScenarioCompletions) -> None:
    """Add the list, and the description of what ``endpoint`` serves, to the FastAPI application of the data port."""

    @app.get(PATH, summary="Scenarios", tags=["inference"], responses=LOOKUP_ERRORS)
    async def scenarios(call: TheCall) -> schemas.ScenarioList:
        """What this key may call, and which variables each takes."""
        names = await pipeline.models(call.head.credentials, call.record)
        return schemas.ScenarioList(data=scenario_cards(names.items()))

    @app.get(_ONE, summary="One scenario", tags=["inference"], responses={404: ERRORS[404], **LOOKUP_ERRORS})
    async def scenario(name: str, call: TheCall) -> schemas.ScenarioCard:
        """What a scenario is called with, by its name or an alias."""
        names = await pipeline.models(call.head.credentials, call.record)
        if name not in names:
            raise ModelNotFound(name)
        meant = names[name]
        return scenario_cards(item for item in names.items() if item[1] is meant)[0]

    @app.post(
        _ONE,
        summary="Call a scenario",
        tags=["inference"],
        response_model=schemas.ChatCompletion,
        responses=completion_responses(app),
    )
    async def complete_scenario(name: str, body: schemas.ScenarioRequest) -> None:  # documents the shape
        """Answer with what a scenario makes of its variables, as a chat completion; streamed with `stream: true`."""

    serve_with(app, _ONE, "POST", endpoint)
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path == _ONE:
            route.path_regex = re.compile(f"^{PREFIX}(?P<name>.+)$")  # a name may hold slashes but not be empty


def scenario_cards(names: Iterable[tuple[str, Scenario]]) -> list[schemas.ScenarioCard]:
    """What a caller may know of the scenarios that these names and aliases stand for, each once, by name."""
    aliases: dict[str, list[str]] = {}
    scenarios: dict[str, Scenario] = {}
    for name, scenario in names:
        scenarios[scenario.name] = scenario
        others = aliases.setdefault(scenario.name, [])
        if name != scenario.name:
            others.append(name)
    return [_card(scenarios[name], aliases[name]) for name in sorted(scenarios)]


def _card(scenario: Scenario, aliases: list[str]) -> schemas.ScenarioCard:
    return schemas.ScenarioCard(
        name=scenario.name,
        description=scenario.description,
        aliases=aliases,
        created=scenario.created,
        variables=variables_schema(scenario),
        answer=None if scenario.answer is None else msgspec.json.decode(scenario.answer.schema),
    )


def variables_schema(scenario: Scenario) -> dict[str, Any]:
    """The JSON Schema of the variables that a call of this scenario gives (draft 2020-12).

    ``input`` is not required: it is what the user says where it is not given as a variable.
    """
    declared = scenario.prompt.input_vars if scenario.prompt is not None else ()
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in declared},
        "required": [name for name in declared if name != PROMPT_INPUT],
        "additionalProperties": False,
    }
