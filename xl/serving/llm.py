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
        await super().__init__(on_this_machine(llm_config), **options)

    async def start(self) -> None:
        await super().start()
        self._app = await self.engine.build_asgi_app()


def on_this_machine(config: Any) -> Any:
    """The configuration as vLLM takes it here: a model and adapters that are in an object store are copied, and settings are its objects.

    Ray would copy files by libraries of its own, into a folder that goes by the model's served name.
    """
    from vllm.config import StructuredOutputsConfig

    given = {name: getattr(config, name) for name in config.model_fields_set}
    engine = dict(config.engine_kwargs)
    engine["structured_outputs_config"] = StructuredOutputsConfig(**engine["structured_outputs_config"])
    if modules := engine.get("lora_modules"):
        engine["lora_modules"] = [replace(module, path=local_path(module.path)) for module in modules]
    loading = config.model_loading_config
    loading = loading.model_copy(update={"model_source": local_path(loading.model_source)})
    return LLMConfig(**given | {"model_loading_config": loading, "engine_kwargs": engine})
