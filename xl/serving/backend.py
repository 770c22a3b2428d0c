"""What stands behind the gateway: a model that takes a request's bytes and gives the answer's bytes."""

from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol


class Head(NamedTuple):
    """What comes before an answer's body."""

    status: int
    content_type: str


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    content_type: str
    body: bytes


class Unavailable(Exception):
    """No replica could answer this request; the same request can be sent again."""


class Backend(Protocol):
    """A model. Bodies go through as they are, so that they are parsed once, by the engine's own server."""

    async def answer(self, path: str, body: bytes) -> Reply:
        """The whole answer. Raises Unavailable."""
        ...

    def stream(self, path: str, body: bytes) -> AsyncGenerator[Head | bytes, None]:
        """The head, then the body in parts as they come. Raises Unavailable."""
        ...
