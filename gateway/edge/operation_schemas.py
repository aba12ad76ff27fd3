"""The shapes of what is asked of models beside chat completions: documentation, as in ``schemas``.

Sources: https://platform.openai.com/docs/api-reference, https://docs.cohere.com/reference/rerank.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Open(BaseModel):
    """A shape that may have further fields, which are passed on as they are."""

    model_config = ConfigDict(extra="allow")


class _Asked(_Open):
    """A request to a scenario."""

    model: str = Field(description="The name or an alias of a scenario.")


class InputUsage(_Open):
    """Tokens that a call used."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsRequest(_Asked):
    """Texts, or the tokens of texts."""

    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None


class Embedding(_Open):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="Numbers, or their 32-bit floats in base64.")


class Embeddings(_Open):
    """The vectors, in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: InputUsage | None = None


class ModerationRequest(_Asked):
    """What is to be judged."""

    input: str | list[str] | list[dict[str, Any]]


class Moderation(_Open):
    """The judgements."""

    id: str
    model: str
    results: list[dict[str, Any]]


class RerankRequest(_Asked):
    """A question, and the documents that may answer it."""

    query: str
    documents: list[str] | list[dict[str, Any]]
    top_n: int | None = Field(None, ge=1)


class Ranked(_Open):
    """One document."""

    index: int
    relevance_score: float


class Ranking(_Open):
    """The documents, the most relevant first."""

    results: list[Ranked]


class ImageRequest(_Asked):
    """What is to be seen."""

    prompt: str
    n: int | None = Field(1, ge=1, le=128)
    size: str | None = None
    stream: bool | None = Field(False, description="Answer with server-sent events, where the backend can.")


class Images(_Open):
    """The images."""

    created: int
    data: list[dict[str, Any]] = Field(description="Each has `b64_json` or `url`.")


class SpeechRequest(_Asked):
    """What is to be said."""

    input: str
    voice: str | dict[str, Any]
    response_format: str | None = "mp3"
    speed: float | None = None
    stream_format: Literal["audio", "sse"] | None = "audio"


class Transcription(_Open):
    """What was said; another `response_format` gives other forms of it."""

    text: str


UPLOAD_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["model", "file"],
    "properties": {
        "model": {"type": "string", "description": "The name or an alias of a scenario."},
        "file": {"type": "string", "format": "binary"},
        "language": {"type": "string"},
        "prompt": {"type": "string"},
        "response_format": {"type": "string"},
        "temperature": {"type": "number"},
        "stream": {"type": "boolean"},
    },
    "additionalProperties": True,
}
