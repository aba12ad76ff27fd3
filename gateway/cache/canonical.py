"""JSON in one form: what differs in white space, order of members, escapes or the way a number is written is the same.

Exact: numbers keep all their digits (no float is made of them), strings all their characters. What cannot be put into
one form without losing something is refused: a repeated member, of which a server may take either one, half of a
surrogate pair, nesting beyond the decoder's bound.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec

_DIGITS_MAX = 400  # of a whole number that is written out; JSON's own range of numbers that travel well ends at 1e308
_encode = msgspec.json.Encoder(order="deterministic").encode


class Unclear(ValueError):
    """A value that has no one form."""


class Canonical:
    """Puts values into that form. Not for several threads."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(float_hook=self._number).decode
        self._fractions = 0

    def form(self, raw: msgspec.Raw | bytes) -> bytes:
        """The canonical form of a JSON value. Raises Unclear."""
        self._fractions = 0
        try:
            value = self._decode(raw)
            form = _encode(value)
        except (msgspec.DecodeError, RecursionError, ArithmeticError, ValueError) as error:
            raise Unclear(str(error)) from None
        # A repeated member was dropped, and what is dropped makes the form shorter; nothing but a number grows by it.
        if type(value) in (dict, list) and (self._fractions or len(form) != len(raw)):
            _refuse_repeated(raw)
        return form

    def _number(self, text: str) -> int | msgspec.Raw:
        """A number with a fraction or an exponent, exactly: whole ones as such, others without needless zeros."""
        self._fractions += 1
        if len(text) < _DIGITS_MAX and "e" not in text and "E" not in text:  # nearly all of them
            short = text.rstrip("0")
            return int(short[:-1]) if short[-1] == "." else msgspec.Raw(short.encode())
        sign, digits, exponent = Decimal(text).as_tuple()
        assert isinstance(exponent, int), "JSON has no infinity"
        written = "".join(map(str, digits))
        significant = written.rstrip("0")
        if not significant:
            return 0
        exponent += len(written) - len(significant)
        if exponent >= 0 and len(significant) + exponent <= _DIGITS_MAX:
            return int(("-" if sign else "") + significant + "0" * exponent)
        number = Decimal((sign, tuple(map(int, significant)), exponent))
        return msgspec.Raw(f"{number:f}".encode() if -_DIGITS_MAX < exponent < 0 else str(number).encode())


def _refuse_repeated(raw: msgspec.Raw | bytes) -> None:
    try:
        json.loads(bytes(raw), object_pairs_hook=_members, parse_float=str, parse_int=str)
    except (ValueError, RecursionError) as error:
        raise Unclear(str(error)) from None


def _members(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise Unclear("a member appears twice")
