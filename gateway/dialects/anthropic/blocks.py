"""The blocks of a streamed answer, one after the other: pieces of a chat's stream in, events of Messages out. Pure.

Invariants:
- One block is open at a time; every block that was begun is ended before the next one, and at the end.
- A piece is told when it comes. Only what comes for another block waits while a call of a tool is not complete, since
  streams of chats may mix the pieces of several calls.
- Of what was told, only the arguments of the open call are kept: by them it is seen whether that call is complete.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections import deque
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.tell import call_id

_encode = msgspec.json.Encoder().encode
_is_json = msgspec.json.Decoder(msgspec.Raw).decode

_DELTA: Final = MappingProxyType(
    {
        "text": b'"text_delta","text":',
        "thinking": b'"thinking_delta","thinking":',
        "signature": b'"signature_delta","signature":',
        "tool_use": b'"input_json_delta","partial_json":',
    }
)
_NO_TEXT: Final = schema.ToldBlock(type="text", text="")
_NO_THOUGHT: Final = schema.ToldBlock(type="thinking", thinking="", signature="")
_NO_INPUT: Final = msgspec.Raw(b"{}")


class _Call:
    """A call of a tool; ``arguments`` are the pieces that came, of which ``told`` have been told."""

    __slots__ = ("arguments", "id", "is_over", "is_waiting", "name", "told")

    def __init__(self, id_: str, name: str) -> None:
        self.id = id_
        self.name = name
        self.arguments: list[str] = []
        self.told = 0
        self.is_waiting = False
        self.is_over = False

    def is_complete(self) -> bool:
        """Whether its arguments are all there, as far as they can tell."""
        arguments = self.arguments
        if not arguments or arguments[-1][-1:] not in "}] \n\t":
            return False
        try:
            _is_json("".join(arguments).encode())
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


_Piece = _Call | str | form.Thinking | form.RedactedThinking


class Blocks:
    """The blocks of one answer; what is to be sent is appended to ``out``."""

    def __init__(self, out: list[bytes]) -> None:
        self._out = out
        self._index = -1  # of the last block that was begun
        self._open = ""  # the kind of the open block; empty where none is
        self._is_signed = False  # the open block of reasoning has its signature
        self._call: _Call | None = None  # whose block is open
        self._calls: dict[int, _Call] = {}  # the last one at each place of the chat's stream
        self._calls_count = 0
        self._waiting: deque[_Piece] = deque()

    @property
    def has_calls(self) -> bool:
        """Whether any tool is called."""
        return self._calls_count > 0

    def say(self, piece: str | form.ThinkingBlock) -> None:
        """Take a piece of text or of reasoning."""
        if self._waiting or self._is_held():
            self._waiting.append(piece)
        else:
            self._tell(piece)

    def call(self, piece: form.ToldCall, completion_id: str) -> None:
        """Take a piece of a call."""
        function = piece.function if isinstance(piece.function, form.ToldFunction) else form.ToldFunction()
        call = self._found(piece, function.name or "", completion_id)
        if call is None or call.is_over:
            return  # of no call that ever began, or of one whose arguments were complete
        if function.arguments:
            call.arguments.append(function.arguments)
        if call is self._call:
            self._tell_arguments(call)
        elif not call.is_waiting:
            call.is_waiting = True
            self._waiting.append(call)
        self._release()

    def end(self) -> None:
        """No piece comes any more."""
        while self._waiting:
            self._tell(self._waiting.popleft())
        self._close()

    def _is_held(self) -> bool:
        """Whether the open block is a call that is not complete."""
        return self._call is not None and not self._call.is_complete()

    def _release(self) -> None:
        while self._waiting and not self._is_held():
            self._tell(self._waiting.popleft())

    def _found(self, piece: form.ToldCall, name: str, completion_id: str) -> _Call | None:
        """The call that a piece belongs to, which it may begin: some servers give every call the same place."""
        place = piece.index if isinstance(piece.index, int) else max(self._calls, default=0)
        known = self._calls.get(place)
        id_ = piece.id if isinstance(piece.id, str) else ""
        if known is not None and (not name or not id_ or id_ == known.id):
            return known
        if not name:
            return None
        begun = self._calls[place] = _Call(id_ or call_id(completion_id, self._calls_count), name)
        self._calls_count += 1
        return begun

    # -- telling ---------------------------------------------------------------------------------------------------

    def _tell(self, piece: _Piece) -> None:
        if isinstance(piece, str):
            if self._open != "text":
                self._start(_NO_TEXT)
            self._delta("text", piece)
        elif isinstance(piece, _Call):
            self._start(schema.ToldBlock(type="tool_use", id=piece.id, name=piece.name, input=_NO_INPUT))
            self._call = piece
            self._tell_arguments(piece)
        elif isinstance(piece, form.RedactedThinking):
            self._start(schema.ToldBlock(type="redacted_thinking", data=piece.data))
            self._close()
        else:
            self._tell_thought(piece)

    def _tell_thought(self, piece: form.Thinking) -> None:
        if self._open != "thinking" or self._is_signed:
            self._start(_NO_THOUGHT)
        if piece.thinking:
            self._delta("thinking", piece.thinking)
        if piece.signature:
            self._delta("signature", piece.signature)
            self._is_signed = True

    def _tell_arguments(self, call: _Call) -> None:
        for piece in call.arguments[call.told :]:
            self._delta("tool_use", piece)
        call.told = len(call.arguments)

    def _start(self, block: schema.ToldBlock) -> None:
        self._close()
        self._index += 1
        self._open = block.type
        self._is_signed = False
        self._out.append(
            b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
            % (self._index, _encode(block))
        )

    def _delta(self, kind: str, text: str) -> None:
        self._out.append(
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":%b%b}}\n\n'
            % (self._index, _DELTA[kind], _encode(text))
        )

    def _close(self) -> None:
        if not self._open:
            return
        if self._call is not None:
            self._call.is_over = True
            self._call.arguments.clear()
            self._call = None
        self._open = ""
        self._out.append(b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % self._index)
