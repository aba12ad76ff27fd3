"""``spec.bedrock`` of a Backend: how a model of Amazon Bedrock is called. See ``base`` for how such models behave."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from gateway.model import OUTPUT_LIMITS
from gateway.registry.base import Node

_OF_CONVERSE = frozenset(
    {"temperature", "top_p", "stop", "tools", "tool_choice", "parallel_tool_calls", "response_format"}
) | {"reasoning_effort", "model", "messages", "stream", "stream_options", "n", *OUTPUT_LIMITS}


def _is_of_the_model(value: str) -> str:
    if not value or not value.isprintable() or len(value) > 128:
        raise ValueError("is not a field name")
    if value.casefold() in _OF_CONVERSE:
        raise ValueError("is one that Converse has a place for")
    return value


ModelField = Annotated[str, AfterValidator(_is_of_the_model)]


GuardrailName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]+|arn:aws[a-z-]*:bedrock:[!-~]{1,2000})$")]


class Guardrail(Node):
    """A guardrail of the account, for the request and for the answer."""

    identifier: Annotated[str, StringConstraints(pattern=r"^([a-z0-9]+|arn:aws[a-z-]*:bedrock:[!-~]{1,2000})$")] = (
        Field(description="Its id or ARN.")
    )
    version: Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{0,7}|DRAFT)$")] = Field(
        description="A number, or DRAFT."
    )


class Bedrock(Node):
    """How a model of Amazon Bedrock is called."""

    additional_model_request_fields: Annotated[list[ModelField], Field(max_length=32)] = Field(
        default_factory=list,
        description="Request fields that the model takes beyond those of Converse, such as top_k or thinking: they are"
        " sent as additionalModelRequestFields, under the same names. Others are refused.",
    )
    guardrail: Guardrail | None = Field(
        default=None, description="Applied to every call; what it stops ends with content_filter. Default: none."
    )
