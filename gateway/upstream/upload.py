"""A form with a file on its way from a caller to a backend: passed on as it comes, and never held whole.

Invariants:
- What is authorised is what is sent: the one part that names the model is replaced, and no other may name it; each part
  is looked at before it leaves.
- What is held is bounded by ``held_max``. While all that came is held it can be sent to another backend; after that the
  caller's body is gone, and so is every further attempt.
- A piece is taken from the caller only when the backend has taken the one before, so a slow backend slows the caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from gateway.dialects.openai.multipart import FormScanner, Part, bare_name, plain_name, text_part
from gateway.dialects.openai.operations import SHAPES
from gateway.errors import GatewayError, InvalidRequest
from gateway.model import NO_PARAMETERS, Backend, ChatRequest, Frozen, Operation, Parameters

MODEL = "model"
_MODEL_BYTES_MAX = 1024
_FIELD_BYTES_MAX = 65_536  # of a field that is looked at before the call is made
_encode = msgspec.json.Encoder().encode
_decode_text = msgspec.json.Decoder(str).decode

Pieces = Callable[[], Awaitable[bytes]]
"""Gives the next piece of the caller's body, ``b""`` at its end. Raises GatewayError, or what ends the task."""


class Governing(Protocol):
    """Says whether a scenario takes a field."""

    def __call__(self, parameters: Parameters, fields: Mapping[str, msgspec.Raw | bytes]) -> None:
        """Raises InvalidRequest."""


class Sending(Frozen, frozen=True):
    """A body as it is sent to one backend. ``length`` None: it is not known, and goes in chunks."""

    length: int | None
    pieces: AsyncIterator[bytes]


class Upload:
    """One form. ``fault`` is what was found wrong with it after the call had begun."""

    def __init__(
        self, operation: Operation, form: FormScanner, take: Pieces, held_max: int, length: int | None
    ) -> None:
        self._operation = operation
        self._form = form
        self._take = take
        self._held_max = held_max
        self._length = length
        self._held: bytearray | None = bytearray()
        self._size = 0
        self._is_over = False
        self._known = 0  # parts that were looked at
        self._model: Part | None = None
        self._parameters = NO_PARAMETERS
        self._check: Governing | None = None
        self._added: dict[str, bytes] = {}
        self.fault: GatewayError | None = None

    @property
    def boundary(self) -> bytes:
        """Of the form."""
        return self._form.boundary

    @property
    def can_be_sent(self) -> bool:
        """Whether all that came from the caller is still here."""
        return self._held is not None

    # Before the call

    async def begin(self) -> tuple[str, dict[str, bytes]]:
        """Read as far as the part that names the model; its value, and those of the fields so far as JSON.

        Raises InvalidRequest where it is not among the first ``held_max`` bytes.
        """
        while self._model is None:
            if self._size > self._held_max:
                raise InvalidRequest(
                    f"`model` must be within the first {self._held_max} bytes of the form: put it before the file.",
                    code="missing_field",
                    param=MODEL,
                )
            if not await self._next(keep=True):
                raise InvalidRequest("`model` is required.", code="missing_field", param=MODEL)
        content = self._content(self._model)
        try:
            model = content.decode()
        except UnicodeDecodeError:
            model = ""
        if not model or len(content) > _MODEL_BYTES_MAX:
            raise InvalidRequest("`model` must be the name of a model.", param=MODEL)
        return model, {name: _encode(value) for name, value in self._texts() if name != MODEL}

    def _content(self, part: Part) -> bytes:
        assert self._held is not None, "what begins is held"
        return bytes(self._held[part.content : part.end])

    def _texts(self) -> list[tuple[str, str]]:
        """The fields that are complete, and no files."""
        return [
            (part.name, self._content(part).decode("utf-8", "replace"))
            for part in self._form.parts
            if not part.is_file and 0 <= part.end - part.content <= _FIELD_BYTES_MAX
        ]

    def govern(self, parameters: Parameters, request: ChatRequest, check: Governing) -> None:
        """Hold the rest of the form to a scenario's rules; what the scenario sets beyond it is sent before the file.

        Raises InvalidRequest for a field among those seen that the scenario does not take.
        """
        self._parameters = msgspec.structs.replace(parameters, check_sampling=False)
        self._check = check
        given = {plain_name(part.name) for part in self._form.parts}
        for name, raw in request.fields.items():
            if name in parameters.overrides or (name in parameters.defaults and plain_name(name) not in given):
                self._added[name] = bytes(raw)
        for part in self._form.parts:
            self._judge(part)
        self._known = len(self._form.parts)

    def _judge(self, part: Part) -> None:
        """Raises InvalidRequest for a part that the scenario does not take, or decides."""
        if part.name in (MODEL, SHAPES[self._operation].needs) or self._check is None:
            return
        self._check(self._parameters, {bare_name(part.name): b'""'})
        if plain_name(part.name) in {plain_name(name) for name in self._parameters.overrides}:
            raise InvalidRequest(
                f"The field `{part.name}` is decided by the model.", code="unsupported_field", param=part.name
            )

    # While it is read

    async def _next(self, *, keep: bool) -> bytes:
        """The next piece, looked at; ``b""`` at the end. Raises GatewayError."""
        if self._is_over:
            return b""
        data = await self._take()
        if not data:
            self._is_over = True
            self._form.end()
            return b""
        self._size += len(data)
        self._form.feed(data)
        self._look()
        if self._held is not None:
            if keep or self._size <= self._held_max:
                self._held += data
            else:
                self._held = None
        return data

    def _look(self) -> None:
        """Look at the parts that are new."""
        parts = self._form.parts
        for place in range(max(self._known - 1, 0), len(parts)):
            part = parts[place]
            if plain_name(part.name) == MODEL:
                self._look_at_model(part)
            elif place >= self._known:
                self._judge(part)
                if self._check is not None and plain_name(part.name) in map(plain_name, self._added):
                    raise InvalidRequest(
                        f"`{part.name}` must come before the file.", code="invalid_value", param=part.name
                    )
        self._known = len(parts)

    def _look_at_model(self, part: Part) -> None:
        if part.name != MODEL or part.is_file:
            raise InvalidRequest("`model` must be a field of that name.", code="unsupported_field", param=MODEL)
        if self._model is not None and self._model.begin != part.begin:
            raise InvalidRequest("The field `model` appears more than once.", code="repeated_field", param=MODEL)
        if part.end >= 0:
            self._model = part

    # The call

    def sending(self, backend: Backend, model: str) -> Sending:
        """The body for a backend, from its beginning. Raises the fault, where there is one."""
        if self.fault is not None:
            raise self.fault
        assert self._held is not None, "asked for what is not there any more"
        assert self._model is not None, "begun before"
        boundary = self._form.boundary
        fields = [text_part(boundary, MODEL, (backend.model or model).encode())]
        fields += [text_part(boundary, name, _as_text(raw)) for name, raw in self._added.items()]
        mine = b"\r\n".join(fields)
        if mine.count(b"--" + boundary) != len(fields):
            raise InvalidRequest("The form cannot be read: choose another boundary.", code="invalid_multipart")
        theirs = self._model.end - self._model.begin
        length = None if self._length is None else self._length - theirs + len(mine)
        return Sending(length=length, pieces=self._pieces(mine))

    async def _pieces(self, mine: bytes) -> AsyncIterator[bytes]:
        held, model = self._held, self._model
        assert held is not None, "asked before"
        assert model is not None, "asked before"
        yield bytes(held[: model.begin]) + mine + bytes(held[model.end :])
        del held
        try:
            while data := await self._next(keep=False):
                yield data
        except GatewayError as fault:
            self.fault = fault
            raise


def _as_text(raw: bytes) -> bytes:
    """A JSON value as forms have it."""
    try:
        return _decode_text(raw).encode()
    except msgspec.DecodeError:
        return raw
