"""What a scenario makes of a request, its prompt and its parameters; and whether the answer is what it promises."""

from gateway.scenarios.answers import AnswerChecks, StreamWatch
from gateway.scenarios.fields import check_fields
from gateway.scenarios.render import render

__all__ = ["AnswerChecks", "StreamWatch", "check_fields", "render"]
