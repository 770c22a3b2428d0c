"""vLLM as an engine: one `AsyncLLM` whose continuous batching takes requests from many rows at once."""

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from xl.ask import Completion, EngineDied, Request, RequestFailed, Sampling, Score, by_text
from xl.engines.models import cpu_computes_bf16
from xl.errors import UserError, require
from xl.recipe import Model
from xl.train.prompts import TEMPLATE_SETTINGS, stop_ids


class VLLMEngine:
    """An engine in this process's event loop (vLLM's core runs in a process of its own).

    `path` is the model's folder or hub id; `chat` overrides what its tokenizer says.
    """

    def __init__(self, model: Model, path: str, chat: bool | None = None) -> None:
        if model.gpus == 0:
            set_cpu_environment(model)
        require_vllm(model)
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_arguments(model, path), **executor_arguments(model)))
        except (ValueError, OSError) as error:
            raise UserError(f"models: vLLM cannot load {model.model!r}: {str(error).strip().splitlines()[0]}") from None
        self._tokenizer = self._llm.get_tokenizer()
        self._numbers = itertools.count()
        self._max_len = model.max_model_len
        has_template = bool(getattr(self._tokenizer, "chat_template", None))  # Mistral's own tokenizer words chats without one
        self._template_settings = TEMPLATE_SETTINGS if has_template else {}
        wanted = model.chat if model.chat is not None else chat
        self.chat = has_template if wanted is None else wanted
        self._stops = [token for token in stop_ids(self._tokenizer) if token is not None] if has_template and self.chat else []

    async def complete(self, request: Request) -> Completion:
        """Sample an answer. Raises RequestFailed or EngineDied."""
        from vllm import TokensPrompt

        tokens = self._tokens(request)
        room = self._max_len - len(tokens)
        if room < 1:
            raise RequestFailed(f"prompt too long: {len(tokens)} tokens, the model takes {self._max_len}")
        # A base model with a chat template names the end of a text alone, and would go on as the user.
        stops = self._stops if request.messages else ()
        parameters = sampling_parameters(request.sampling, request.seed, min(room, request.sampling.max_tokens), stops)
        output = (await self._generate(TokensPrompt(prompt_token_ids=tokens), parameters)).outputs[0]
        first = output.logprobs[0] if output.logprobs else {}
        return Completion(
            text=output.text,
            finish_reason=output.finish_reason or "stop",
            first_logprobs=by_text((str(entry.decoded_token), float(entry.logprob)) for entry in first.values()),
            prompt_tokens=len(tokens),
            output_tokens=len(output.token_ids),
        )

    async def score(self, prompt: str, continuation: str, max_tokens: int) -> Score:
        """Log-probabilities of the first `max_tokens` tokens of `continuation` after `prompt`. Raises as `complete`."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        prefix = list(self._tokenizer.encode(prompt))
        target = self._continued(prompt, prefix, continuation)[:max_tokens]
        tokens = prefix + target
        if len(tokens) >= self._max_len:
            raise RequestFailed(f"prompt too long: {len(tokens)} tokens, the model takes {self._max_len}")
        if not target:
            raise RequestFailed("nothing to score: the text has no tokens")
        parameters = SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        entries = (await self._generate(TokensPrompt(prompt_token_ids=tokens), parameters)).prompt_logprobs
        pairs = zip(entries[len(prefix) :], target, strict=True)
        return Score(tuple(float(entry[token].logprob) for entry, token in pairs), prompt_tokens=len(tokens))

    def _continued(self, prompt: str, prefix: list[int], continuation: str) -> list[int]:
        """The tokens of the continuation where it stands: some tokenizers write another mark at the beginning of a text.

        Where prompt and continuation share a token it is tokenised by itself.
        """
        both = list(self._tokenizer.encode(prompt + continuation))
        if both[: len(prefix)] == prefix:
            return both[len(prefix) :]
        return list(self._tokenizer.encode(continuation, add_special_tokens=False))

    async def close(self) -> None:
        """End the engine's processes."""
        self._llm.shutdown()

    def _tokens(self, request: Request) -> list[int]:
        if not request.messages:
            return list(self._tokenizer.encode(request.prompt))
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        how = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
        return list(self._tokenizer.apply_chat_template(messages, **how, **self._template_settings))

    async def _generate(self, prompt: Any, parameters: Any) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            outputs = [output async for output in self._llm.generate(prompt, parameters, str(next(self._numbers)))]
        except EngineDeadError as error:
            raise EngineDied(str(error)) from None
        except ValueError as error:
            raise RequestFailed(f"vLLM refuses the request: {error}") from None
        return outputs[-1]


def require_vllm(model: Model) -> None:
    """Raise UserError unless vLLM is installed, and for a model without GPUs its build for CPU: another would take a GPU unasked."""
    require("vllm", "gpu" if model.gpus else "cpu")
    if model.gpus == 0:
        from vllm.platforms import current_platform

        if not current_platform.is_cpu():
            raise UserError(f"models: {model.model!r} has `gpus: 0`, and this vLLM is not built for CPU: set `gpus: 1`, or install xl[cpu]")


def set_cpu_environment(model: Model) -> None:
    """Set them for this process. The user's own win, but for the threads: Ray has set one for each of its workers."""
    for key, value in cpu_environment(model).items():
        os.environ.setdefault(key, value)
    os.environ["OMP_NUM_THREADS"] = cpu_environment(model)["OMP_NUM_THREADS"]


def cpu_environment(model: Model) -> dict[str, str]:
    """Environment variables that the CPU engine wants before it is imported."""
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, round(model.kv_cache_gib))),
        # By default vLLM ties itself to some cores and leaves one out: half of a small machine.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(model.threads or os.cpu_count() or 1),
    }


def engine_arguments(model: Model, path: str) -> Mapping[str, Any]:
    """What the recipe's model means to vLLM."""
    arguments: dict[str, Any] = {
        "model": path,
        "revision": model.revision,
        "dtype": cpu_dtype() if model.dtype == "auto" and model.gpus == 0 else model.dtype,
        "max_model_len": model.max_model_len,
        "max_num_seqs": model.max_num_seqs,
        "tensor_parallel_size": model.tensor_parallel,
        "gpu_memory_utilization": model.gpu_memory_utilization,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "generation_config": "vllm",
        # By default vLLM (0.29) takes any grammar that one of its libraries knows, but compiles all with the engine's first: what that
        # does not know is ignored, or ends the answer or the engine.
        "structured_outputs_config": {"backend": "xgrammar"},
    }
    if model.gpus == 0:
        # The CPU engine of 0.29 dies on a per-request seed as soon as a prompt is prefilled in chunks.
        batched = max(2048, model.max_model_len)
        arguments |= {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": batched}
        del arguments["gpu_memory_utilization"]
    return arguments


def cpu_dtype() -> str:
    """What a CPU computes in fastest."""
    return "bfloat16" if cpu_computes_bf16() else "float32"


def executor_arguments(model: Model) -> dict[str, str]:
    """Where the model computes, for who may choose it (Ray's LLM server does so itself): on CPU within vLLM's core.

    By default vLLM has a process of its own for that, in which it binds threads to cores; ours are not bound, and the two processes
    spin on shared memory.
    """
    if model.gpus or model.tensor_parallel > 1:
        return {}
    return {"distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor"}


def sampling_parameters(sampling: Sampling, seed: int, max_tokens: int, stops: Sequence[int] = ()) -> Any:
    """`Sampling` in vLLM's words, with the tokens that end the answer beside the model's own; a greedy draw needs no seed."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    structured = None
    if sampling.choices:
        structured = StructuredOutputsParams(choice=list(sampling.choices))
        if all(len(choice) == 1 and choice.isascii() for choice in sampling.choices):
            max_tokens = 1  # such a choice is one token, which need not be followed by one that ends the answer
    elif sampling.json_schema:
        structured = StructuredOutputsParams(json=dict(sampling.json_schema))
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        stop=list(sampling.stop) or None,
        stop_token_ids=list(stops) or None,
        seed=seed if sampling.temperature > 0 else None,
        logprobs=sampling.num_logprobs or None,
        structured_outputs=structured,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
