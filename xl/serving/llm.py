"""A model on Ray Serve LLM. Only replicas and whoever deploys them import this: it needs ray[serve] and vLLM."""

from ray.serve.llm.deployment import LLMServer

from xl.serving.inprocess import Forwarder


class LLMReplica(Forwarder, LLMServer):  # type: ignore[misc]
    """Ray's replica of a vLLM engine, which also takes a request's bytes to vLLM's own server and brings the answer's bytes back.

    Ray's ingress would parse each request, pickle it, validate it again here, and do the same with the answer on its way back.
    """

    async def start(self) -> None:
        await super().start()
        self._app = await self.engine.build_asgi_app()
