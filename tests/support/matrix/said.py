"""What a model says, whatever the provider; and what may go wrong with it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

from tests.support.documents import Document
from tests.support.scripts import Gate, Received, Script

CITIES = ("Bonn", "Rome")
WEATHER = "It rains in Bonn and the sun shines in Rome."


@dataclass(frozen=True)
class Call:
    """A call of the tool ``get_weather``."""

    id: str
    city: str


@dataclass(frozen=True)
class Said:
    """An answer of the model; ``stopped_by`` is the stop sequence that ended it."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    stopped_by: str = ""


Trouble = Literal["refused", "failed", "overloaded", "breaks"]
"""400 with a reason, 500, what says that the provider is overloaded, and a stream that tells of an error midway."""

CALLS = tuple(Call(f"call_{city}", city) for city in CITIES)
REASON = "the scripted reason"


class Face(Protocol):
    """A provider: documents of its backend, and how it says things."""

    @property
    def name(self) -> str:
        """The provider, which names the scenario, too."""

    def document(self, url: str) -> Document:
        """Its Backend, at a server of this address."""

    def says(self, said: Said, request: Received) -> Script:
        """The answer to a request, whole or streamed as it asks."""

    def trouble(self, trouble: Trouble, request: Received) -> Script:
        """What goes wrong."""

    def problems(self, request: Received) -> list[str]:
        """What the provider's own types do not allow of a request."""

    def key(self) -> str:
        """The credential that a request must have."""


class Model:
    """The behaviour of a provider's server: says what is queued, and notes what it should not have been asked.

    Where there is ``heard``, a stream breaks only when that is opened: by who has heard the beginning.
    """

    def __init__(self, face: Face) -> None:
        self._face = face
        self._queue: deque[Said | Trouble] = deque()
        self.heard: Gate | None = None
        self.problems: list[str] = []
        self.bodies: list[bytes] = []

    def will(self, *said: Said | Trouble) -> None:
        """Queue what the next requests are answered with."""
        self._queue.extend(said)

    def forget(self) -> None:
        """As new."""
        self._queue.clear()
        self.heard = None
        self.problems, self.bodies = [], []

    def __call__(self, request: Received) -> Script:
        """See Behaviour."""
        self.problems += self._face.problems(request)
        self.bodies.append(request.body)
        said = self._queue.popleft() if self._queue else Said("nothing was queued")
        if isinstance(said, Said):
            return self._face.says(said, request)
        script = self._face.trouble(said, request)
        if said != "breaks" or self.heard is None:
            return script
        *steps, trouble, end = script.steps
        return Script((*steps, self.heard, trouble, end))


class Client(Protocol):
    """An official client, made with a base URL, a key and a model; it has a method for each feature that it knows."""

    def close(self) -> None:
        """Let go of its connections."""
