"""A model on Ray Serve LLM. Only replicas and whoever deploys them import this: it needs ray[serve] and vLLM."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from ray.serve.llm.deployment import LLMServer

from xl.serving import inprocess
from xl.serving.backend import Head, Reply


class LLMReplica(LLMServer):  # type: ignore[misc]
    """Ray's replica of a vLLM engine, which also takes a request's bytes to vLLM's own server and brings the answer's bytes back.

    Ray's ingress would parse each request, pickle it, validate it again here, and do the same with the answer on its way back;
    at one token per answer that was a fifth of the throughput.
    """

    async def start(self) -> None:
        await super().start()
        self._app = await self.engine.build_asgi_app()

    async def answer(self, path: str, body: bytes) -> Reply:
        return await inprocess.answer(self._app, path, body)

    async def stream(self, path: str, body: bytes) -> AsyncGenerator[Head | bytes, None]:
        async with aclosing(inprocess.stream(self._app, path, body)) as parts:
            async for part in parts:
                yield part
