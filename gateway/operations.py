"""What is asked of models beside chat completions: the same straight line as ``pipeline``, with calls of another kind.

Invariants: those of the pipeline. A form with a file is passed on while it comes, once its caller is known, its model
found and its call admitted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

from gateway.answering import Answering
from gateway.cleanup import Cleanup
from gateway.dialects.openai.multipart import FormScanner, read_boundary
from gateway.dialects.openai.operations import read_operation, request_of
from gateway.errors import GatewayError
from gateway.model import ChatRequest, Credentials, Frozen, Operation
from gateway.pipeline import Incoming, Pipeline
from gateway.reply import Asked, Reply
from gateway.scenarios import AnswerChecks, check_fields
from gateway.telemetry import RequestRecord
from gateway.upstream.call import Answer
from gateway.upstream.operations import UploadCaller
from gateway.upstream.upload import Upload


class UploadBounds(Frozen, frozen=True):
    """Bytes and counts; see the settings of the same names."""

    held_max: int = 1_048_576
    parts_max: int = 256


class IncomingForm(Protocol):
    """A form on its way."""

    @property
    def cache_control(self) -> bytes:
        """What the caller says of answers that were kept."""

    @property
    def routing_headers(self) -> Mapping[str, str]:
        """The headers that conditions of targets may look at."""

    @property
    def content_type(self) -> bytes:
        """Of the body."""

    @property
    def length(self) -> int | None:
        """Bytes of the body; None where they were not announced."""

    async def piece(self) -> bytes:
        """The next piece of the body, ``b""`` at its end. Raises GatewayError."""


class Operations:
    """Holds nothing of any request. ``line`` makes its calls with the caller of operations."""

    def __init__(self, line: Pipeline, uploads: UploadCaller, answers: AnswerChecks, bounds: UploadBounds) -> None:
        self._line = line
        self._uploads = uploads
        self._answers = answers
        self._bounds = bounds

    def perform(
        self, operation: Operation, credentials: Credentials, incoming: Incoming, record: RequestRecord
    ) -> Awaitable[Reply]:
        """Answer a request whose body is JSON; to be awaited at once. Raises GatewayError."""

        def read(body: bytes) -> ChatRequest:
            return read_operation(operation, body, self._bounds.parts_max)

        return self._line.chat(credentials, incoming, read, record)

    async def upload(
        self, operation: Operation, credentials: Credentials, incoming: IncomingForm, record: RequestRecord
    ) -> Reply:
        """Answer a request whose body is a form with a file. Raises GatewayError."""
        form = _Form(operation, incoming, self._bounds)
        line = self._line.answered_by(_Governed(self._uploads, self._answers, form))
        try:
            return await line.chat(credentials, form, form.read, record)
        except GatewayError:
            if form.upload is not None and form.upload.fault is not None:  # whatever the backend made of the rest
                raise form.upload.fault from None
            raise


class _Form:
    """What the line reads of a form: the fields up to the one that names the model."""

    def __init__(self, operation: Operation, incoming: IncomingForm, bounds: UploadBounds) -> None:
        self._operation = operation
        self._incoming = incoming
        self._bounds = bounds
        self._model = ""
        self._fields: dict[str, bytes] = {}
        self.upload: Upload | None = None
        self.cache_control = incoming.cache_control
        self.routing_headers = incoming.routing_headers

    def body_now(self) -> None:
        """It has to be waited for."""

    async def body(self) -> bytes:
        """Read what comes first; nothing of it is given. Raises GatewayError."""
        incoming, bounds = self._incoming, self._bounds
        scanner = FormScanner(read_boundary(incoming.content_type), bounds.parts_max)
        self.upload = Upload(self._operation, scanner, incoming.piece, bounds.held_max, incoming.length)
        self._model, self._fields = await self.upload.begin()
        return b""

    def read(self, _body: bytes) -> ChatRequest:
        """The request that the fields make."""
        return request_of(self._operation, self._model, self._fields, self._incoming.length or 0)


class _Governed(Answering):
    """Answers one form, the rest of which is held to the rules of its scenario."""

    def __init__(self, uploads: UploadCaller, answers: AnswerChecks, form: _Form) -> None:
        super().__init__(uploads, answers)
        self._uploads = uploads
        self._form = form

    def call(self, asked: Asked, request: ChatRequest, cleanup: Cleanup) -> Awaitable[Answer]:
        """See Answering."""
        upload = self._form.upload
        assert upload is not None, "read before"
        upload.govern(asked.scenario.parameters, request, check_fields)
        return self._uploads.of(upload).call(asked.plan, request, asked.record, cleanup)
