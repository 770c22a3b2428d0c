"""The endpoint on Ray Serve: one deployment per model, each scaled by its own load, and the gateway that asks them."""

import asyncio
import logging
import math
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from xl import storage
from xl.engines.models import ResolvedModel, prepare, resolve
from xl.engines.vllm import cpu_environment, engine_arguments, require_vllm
from xl.errors import UserError, require
from xl.serving.backend import Head, Reply, Unavailable
from xl.serving.gateway import build_gateway
from xl.serving.keys import Keyring
from xl.serving.settings import ServedModel, Serving

_PREFIX = "model:"
HEALTH_CHECK_SECONDS = 5.0
LOAD_REPORT_SECONDS = 2.0
MAX_GATEWAY_REQUESTS = 10_000
STATUS_SECONDS = 1.0
MAX_ADAPTERS_PER_BATCH = 8


def model_application(name: str, serving: Serving) -> Any:
    """A model as a Ray Serve application; its handle has the methods of `xl.serving.backend.Backend`.

    Raises:
        UserError: the model or one of its adapters is not there.
    """
    serve = require("ray.serve", "cpu")
    model = serving.models[name]
    options = deployment_options(model, serving)
    if model.engine == "scripted":
        from xl.serving.scripted import ScriptedReplica

        return serve.deployment(ScriptedReplica, name=deployment_name(name), **options).bind(model.delay_seconds)
    require_vllm(model)
    from ray.serve.llm import LLMConfig, build_llm_deployment

    from xl.serving.llm import LLMReplica

    resolved = resolve(model.model, model.revision)
    prepare(resolved)
    config = LLMConfig(**llm_arguments(name, model, resolved, serving), deployment_config=options)
    return build_llm_deployment(config, name_prefix=_PREFIX, deployment_cls=LLMReplica)


def deployment_name(name: str) -> str:
    """What Ray Serve calls a model's deployment."""
    return _PREFIX + name.replace("/", "--").replace(".", "_")  # as Ray Serve LLM spells it


def deployment_options(model: ServedModel, serving: Serving) -> dict[str, Any]:
    """How a model scales, and how it is watched and stopped."""
    fewest, most = model.replicas
    return {
        "autoscaling_config": {
            "min_replicas": 0 if model.scale_to_zero else fewest,
            "initial_replicas": fewest,
            "max_replicas": most,
            # Ray Serve LLM's default is a billion, with which nothing ever scales.
            "target_ongoing_requests": model.target,
            "upscale_delay_s": serving.upscale_delay_seconds,
            "downscale_delay_s": serving.downscale_delay_seconds,
            "metrics_interval_s": LOAD_REPORT_SECONDS,
            "look_back_period_s": max(2 * LOAD_REPORT_SECONDS, serving.upscale_delay_seconds),
        },
        "max_ongoing_requests": model.max_ongoing_requests,
        "ray_actor_options": {"num_cpus": 0},  # the engine's bundle holds what a replica needs
        "health_check_period_s": HEALTH_CHECK_SECONDS,
        "graceful_shutdown_timeout_s": float(serving.drain_seconds),
        "logging_config": {"enable_access_log": False},
    }


def llm_arguments(name: str, model: ServedModel, resolved: ResolvedModel, serving: Serving) -> dict[str, Any]:
    """A model in the words of Ray's `LLMConfig`.

    Adapters are handed to vLLM as its static LoRA modules: it takes local folders, which Ray's own `lora_config` refuses.
    """
    engine = dict(engine_arguments(model, resolved.path))
    del engine["model"]
    engine |= {
        "disable_log_stats": not model.engine_metrics,
        # vLLM's limit for answers that name none; the gateway refuses those that name a larger one.
        "override_generation_config": {"max_new_tokens": serving.limits.max_tokens},
        "allowed_origins": [],
    }
    if model.adapters:
        modules = [{"name": adapter, "path": adapter_path(path)} for adapter, path in model.adapters.items()]
        engine |= {
            "enable_lora": True,
            "max_lora_rank": model.max_lora_rank,
            "max_loras": min(len(modules), MAX_ADAPTERS_PER_BATCH),
            "max_cpu_loras": len(modules),
            "lora_modules": _modules(modules),
        }
    # `cpus` and `gpus` are a replica's, of which each rank has its part.
    bundle = {
        name: amount / model.tensor_parallel for name, amount in (("CPU", model.cpus), ("GPU", model.gpus)) if amount or name == "CPU"
    }
    return {
        "model_loading_config": {"model_id": name, "model_source": resolved.path},
        "engine_kwargs": engine,
        "placement_group_config": {"bundles": [bundle] * model.tensor_parallel},
        "log_engine_metrics": model.engine_metrics,
        "runtime_env": {"env_vars": cpu_environment(model)} if model.gpus == 0 else None,
    }


def _modules(modules: list[dict[str, str]]) -> list[Any]:
    from vllm.entrypoints.openai.models.protocol import LoRAModulePath

    return [LoRAModulePath(**module) for module in modules]


def adapter_path(path: str) -> str:
    """Where an adapter is: a local folder made absolute, or a hub id as it stands. Raises UserError for a folder that holds none."""
    folder = storage.place(path).expanduser()
    if folder.is_dir():
        if not (folder / "adapter_config.json").exists():
            raise UserError(f"adapters: the folder {path!r} holds no adapter_config.json; a PEFT adapter is wanted")
        return str(folder.resolve())
    if not storage.is_local(folder) or path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise UserError(f"adapters: no adapter folder {path!r}")
    return path


@contextmanager
def deployed(serving: Serving) -> Iterator[dict[str, "RayBackend"]]:
    """The models, running on the connected Ray without Serve's HTTP proxy; they end with the block.

    Raises:
        UserError: a model is not there, its engine does not start, or there are too few GPUs or CPUs.
    """
    serve = require("ray.serve", "cpu")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    _check_resources(serving)
    applications = {deployment_name(name): model_application(name, serving) for name in serving.models}
    serve.start(proxy_location="Disabled")
    try:
        targets = [serve.RunTarget(target=application, name=name, route_prefix=None) for name, application in applications.items()]
        handles = _run_many(targets)
        yield {name: RayBackend(handle) for name, handle in zip(serving.models, handles, strict=True)}
    finally:
        serve.shutdown()


def _run_many(targets: list[Any]) -> list[Any]:
    from ray import serve

    try:
        handles: list[Any] = serve.run_many(targets)
    except RuntimeError as error:
        raise UserError(f"models: an engine did not start: {str(error).strip().splitlines()[-1]}") from None
    return handles


def check_models(serving: Serving) -> None:
    """Look for all models and adapters, before anything slow starts. Raises UserError for one that is not there."""
    for model in serving.models.values():
        if model.engine == "vllm":
            resolve(model.model, model.revision)
        for path in model.adapters.values():
            adapter_path(path)


def _check_resources(serving: Serving) -> None:
    import ray

    models = [model for model in serving.models.values() if model.engine == "vllm"]
    wanted = {"GPU": sum(m.gpus * m.replicas[0] for m in models), "CPU": sum(m.cpus * m.replicas[0] for m in models)}
    for kind, number in wanted.items():
        found = ray.cluster_resources().get(kind, 0)
        if number > found:
            raise UserError(f"models: they want {number:g} {kind}s, Ray has {found:g}; serve fewer models, or set their `{kind.lower()}s`")


def cluster_application(serving: Serving) -> Any:
    """The whole endpoint as one application: the gateway as the ingress behind Serve's proxy, and the models.

    There is one gateway, so that limits per key are exact; it forwards bytes and is far from being the narrowest part.

    Raises:
        UserError: a model is not there, or the settings ask for no key or say where to listen, which `xl serve` alone can heed.
    """
    if not serving.require_key:
        raise UserError(
            "args.require_key: false is for `xl serve` on one machine alone; on a cluster others reach Ray Serve's proxy: leave it out"
        )
    if listening := sorted({"host", "port"} & serving.model_fields_set):
        raise UserError(f"args.{listening[0]}: Ray Serve's proxy listens where `http_options` say; put it there")
    serve = require("ray.serve", "cpu")
    gateway = serve.deployment(
        serve.ingress()(_GatewayReplica),
        name="gateway",
        num_replicas=1,
        max_ongoing_requests=MAX_GATEWAY_REQUESTS,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=float(serving.drain_seconds),
    )
    return gateway.bind(serving, {name: model_application(name, serving) for name in serving.models})


class _GatewayReplica:
    """The gateway as Ray Serve runs it."""

    def __init__(self, serving: Serving, handles: Mapping[str, Any]) -> None:
        self._serving, self._handles = serving, handles

    def __serve_build_asgi_app__(self) -> Any:
        serving = self._serving
        backends = {name: RayBackend(handle) for name, handle in self._handles.items()}
        return build_gateway(serving, Keyring(serving.keys_path, os.environ), backends, replica_counter(serving))


class RayBackend:
    """A model's deployment, as the gateway sees it. Implements `xl.serving.backend.Backend`."""

    def __init__(self, handle: Any) -> None:
        # Bytes by gRPC straight to the replica: through Ray's object store a call costs half as much again on both sides.
        direct = handle.options(_by_reference=False, request_serialization="pickle", response_serialization="pickle")
        self._whole = direct.options(method_name="answer")
        self._parts = direct.options(method_name="stream", stream=True)

    async def answer(self, path: str, body: bytes) -> Reply:
        with _gone_replicas_as_unavailable():
            response = self._whole.remote(path, body)
            try:
                reply: Reply = await response
            except asyncio.CancelledError:
                response.cancel()
                raise
        return reply

    async def stream(self, path: str, body: bytes) -> AsyncGenerator[Head | bytes, None]:
        with _gone_replicas_as_unavailable():
            response = self._parts.remote(path, body)
            try:
                async for part in response:
                    yield part
            finally:
                response.cancel()


@contextmanager
def _gone_replicas_as_unavailable() -> Iterator[None]:
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

    try:
        yield
    except (RayActorError, BackPressureError, DeploymentUnavailableError) as error:
        raise Unavailable(str(error).splitlines()[0]) from None


def replica_counter(serving: Serving) -> Callable[[], Awaitable[Mapping[str, int]]]:
    """Tells how many replicas of each model are running. An answer may be a second old."""
    known: Mapping[str, int] = {}
    asked = -math.inf
    asking = asyncio.Lock()

    async def num_replicas() -> Mapping[str, int]:
        nonlocal known, asked
        async with asking:
            if time.monotonic() - asked > STATUS_SECONDS:
                known = await asyncio.to_thread(_num_replicas, serving)
                asked = time.monotonic()
        return known

    return num_replicas


def _num_replicas(serving: Serving) -> dict[str, int]:
    from ray import serve

    deployments = [item for application in serve.status().applications.values() for item in application.deployments.items()]
    running = {name: deployment.replica_states.get("RUNNING", 0) for name, deployment in deployments}
    return {name: running.get(deployment_name(name), 0) for name in serving.models}
