"""The fields of a chat request that say how to sample: what each may hold; pure.

Sources: https://platform.openai.com/docs/api-reference/chat/create; for ``top_k``, ``min_p`` and
``repetition_penalty``, which are not OpenAI's, https://docs.vllm.ai/en/latest/api/vllm/sampling_params.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

_Meta = msgspec.Meta
_BYTES_MAX = 65_536  # of any of them: what is decoded stays small whatever is sent


class _Rule(NamedTuple):
    expected: str
    type: Any

    def reader(self) -> Callable[[msgspec.Raw | bytes], object]:
        return msgspec.json.Decoder(self.type | None).decode


_PENALTY = _Rule("a number from -2 to 2", Annotated[float, _Meta(ge=-2, le=2)])
_SHARE = _Rule("a number from 0 to 1", Annotated[float, _Meta(ge=0, le=1)])

_RULES: Mapping[str, _Rule] = {
    "temperature": _Rule("a number from 0 to 2", Annotated[float, _Meta(ge=0, le=2)]),
    "top_p": _SHARE,
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "n": _Rule("an integer from 1 to 128", Annotated[int, _Meta(ge=1, le=128)]),
    "seed": _Rule("an integer", int),
    "stop": _Rule("a text or a list of at most 4", str | Annotated[list[str], _Meta(max_length=4)]),
    "logprobs": _Rule("true or false", bool),
    "top_logprobs": _Rule("an integer from 0 to 20", Annotated[int, _Meta(ge=0, le=20)]),
    "logit_bias": _Rule("numbers from -100 to 100 by token", dict[str, Annotated[float, _Meta(ge=-100, le=100)]]),
    "top_k": _Rule("an integer from -1", Annotated[int, _Meta(ge=-1)]),
    "min_p": _SHARE,
    "repetition_penalty": _Rule("a number above 0", Annotated[float, _Meta(gt=0)]),
}

_READERS = {name: (rule.reader(), rule.expected) for name, rule in _RULES.items()}


def fault_of(name: str, raw: msgspec.Raw | bytes) -> str | None:
    """What a field should have been ("a number from 0 to 2"); None where it is right or not one of these."""
    known = _READERS.get(name)
    if known is None:
        return None
    read, expected = known
    if len(raw) > _BYTES_MAX:
        return expected
    try:
        read(raw)
    except (msgspec.DecodeError, RecursionError):
        return expected
    return None


def is_sampling(name: str) -> bool:
    """Tell whether a field is one of these."""
    return name in _READERS
