"""Where a prompt goes: the messages of a request with the scenario's rendered prompt in its place; pure.

The place is the scenario's ``prompt_placement``. Where it says nothing, a prompt that takes the variable ``input``
becomes the user's message, and any other the first system message:

- ``system`` or ``developer``: one message of that role before all others, which stay as they are.
- ``user``: in the user's last message, in place of its text where that was taken as ``input``, else before it.

``input`` that is not among the given variables is the text of the user's last message. A conversation that would hold
the prompt alone is sent as the user's words: most chat templates want a user.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.dialects.openai.messages import Turn, alone, last_user_turn, with_first, with_text, with_text_before
from gateway.errors import InvalidRequest
from gateway.model import PROMPT_INPUT, Prompt, PromptPlacement
from gateway.scenarios.variables import fill


def with_prompt(
    prompt: Prompt,
    placement: PromptPlacement | None,
    messages: msgspec.Raw | bytes | None,
    given: Mapping[str, str],
    field: str,
) -> bytes:
    """The messages to send; ``messages`` None: there are none. Raises InvalidRequest, naming ``field`` and variable."""
    turn: Turn | None = None
    values = given
    takes_input = PROMPT_INPUT in prompt.input_vars
    is_taken = takes_input and PROMPT_INPUT not in given
    if is_taken and messages is not None:
        turn = last_user_turn(messages)
        if turn is not None and turn.text:
            values = {**given, PROMPT_INPUT: turn.text}
    for name in prompt.input_vars:
        if name not in values:
            raise _missing(name, field)
    text = fill(prompt, values)
    if messages is None:
        return alone(text)
    place = placement or ("user" if takes_input else "system")
    if place != "user":
        return with_first(messages, place, text)
    turn = turn or last_user_turn(messages)
    if turn is None:
        return with_first(messages, "user", text)
    return with_text(turn, text) if is_taken else with_text_before(turn, text)


def _missing(name: str, field: str) -> InvalidRequest:
    where = " or a message of the user with a text" if name == PROMPT_INPUT else ""
    return InvalidRequest(
        f"The prompt needs the variable `{name}`{where}.", code="missing_field", param=f"{field}.{name}"
    )
