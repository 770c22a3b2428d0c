"""A model on Ray Serve LLM. Only replicas and whoever deploys them import this: it needs ray[serve] and vLLM."""

from dataclasses import replace
from typing import Any

from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from xl.engines.models import local_path
from xl.serving.inprocess import Forwarder


class LLMReplica(Forwarder, LLMServer):  # type: ignore[misc]
    """Ray's replica of a vLLM engine, which also takes a request's bytes to vLLM's own server and brings the answer's bytes back.

    Ray's ingress would parse each request, pickle it, validate it again here, and do the same with the answer on its way back.
    """

    async def __init__(self, llm_config: Any, **options: Any) -> None:  # type: ignore[misc]  # Ray awaits it
        await super().__init__(with_local_files(llm_config), **options)

    async def start(self) -> None:
        await super().start()
        self._app = await self.engine.build_asgi_app()


def with_local_files(config: Any) -> Any:
    """The configuration with a model and adapters that are files of this machine, copied here if they are in an object store.

    Ray would copy them by libraries of its own, into a folder that goes by the model's served name.
    """
    source, modules = config.model_loading_config.model_source, config.engine_kwargs.get("lora_modules", [])
    here, modules_here = local_path(source), [replace(module, path=local_path(module.path)) for module in modules]
    if (here, modules_here) == (source, modules):
        return config
    loading = config.model_loading_config.model_copy(update={"model_source": here})
    engine = config.engine_kwargs | ({"lora_modules": modules_here} if modules else {})
    given = {name: getattr(config, name) for name in config.model_fields_set}
    return LLMConfig(**given | {"model_loading_config": loading, "engine_kwargs": engine})
