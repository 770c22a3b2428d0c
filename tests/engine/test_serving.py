"""The endpoint with a real vLLM engine and a LoRA adapter from an object store. One endpoint serves all tests here."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.endpoint import MESSAGES, Endpoint
from tests.object_store import object_store
from xl.errors import UserError
from xl.storage import place, upload

pytestmark = pytest.mark.engine

MODEL = "packaged/smollm2-135m-instruct"


def make_adapter(folder: Path) -> Path:
    """An adapter that changes the model: its weights are random and weigh much."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from xl.engines.models import prepare, resolve

    resolved = resolve(MODEL)
    prepare(resolved)
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(resolved.path, dtype=torch.bfloat16)
    tuned = get_peft_model(base, LoraConfig(r=8, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("endpoint")
    with object_store() as bucket:
        adapter = f"{bucket}/adapter"
        upload(make_adapter(folder / "adapter"), place(adapter))
        model = {"model": MODEL, "max_model_len": 512, "max_num_seqs": 8, "adapters": {"tuned": adapter}, "max_lora_rank": 8}
        running = Endpoint(folder, {"models": {"smollm2": model}, "limits": {"max_tokens": 24}})
        yield running
        running.close()


def test_it_chats_streams_and_gives_log_probabilities(endpoint: Endpoint) -> None:
    client = endpoint.client()
    whole = client.chat.completions.create(model="smollm2", messages=MESSAGES, temperature=0, logprobs=True, top_logprobs=5)
    choice = whole.choices[0]
    assert choice.message.content and whole.usage and whole.usage.completion_tokens == 24, "an answer without a wish ends at the limit"
    assert choice.logprobs and choice.logprobs.content and len(choice.logprobs.content[0].top_logprobs) == 5
    parts = client.chat.completions.create(model="smollm2", messages=MESSAGES, temperature=0, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == choice.message.content


def test_an_adapter_from_an_object_store_answers_by_its_name(endpoint: Endpoint) -> None:
    assert {model.id for model in endpoint.client().models.list()} == {"smollm2", "tuned"}

    def logprob(name: str) -> float:
        client = endpoint.client()
        answer = client.chat.completions.create(model=name, messages=MESSAGES, temperature=0, max_tokens=1, logprobs=True)
        assert answer.model == name
        return answer.choices[0].logprobs.content[0].logprob  # type: ignore[union-attr, index]

    assert abs(logprob("smollm2") - logprob("tuned")) > 0.01


def test_the_engines_own_refusals_arrive_in_openais_format(endpoint: Endpoint) -> None:
    with pytest.raises(openai.BadRequestError) as told:
        endpoint.client().completions.create(model="smollm2", prompt="word " * 2000, max_tokens=4)
    assert "512" in told.value.message


def test_a_schema_that_the_engine_cannot_keep_is_refused_and_others_are_answered(endpoint: Endpoint) -> None:
    def ask(**number: object) -> str:
        schema = {"type": "object", "properties": {"n": {"type": "integer", **number}}, "required": ["n"], "additionalProperties": False}
        wanted: Any = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
        answer = endpoint.client().chat.completions.create(model="smollm2", messages=MESSAGES, temperature=0, response_format=wanted)
        return str(answer.choices[0].message.content)

    assert re.match(r'\s*\{\s*"n"\s*:\s*-?\d', ask())
    with pytest.raises(openai.BadRequestError, match="xgrammar"):
        ask(multipleOf=3)
    assert re.match(r'\s*\{\s*"n"\s*:\s*-?\d', ask())


def test_runs_can_ask_through_it_and_are_told_that_adapters_forbid_to_score(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    from xl.ask import Message, Request, Sampling
    from xl.engines.openai import Endpoint as Remote
    from xl.engines.openai import OpenAIEngine

    monkeypatch.setenv("OPENAI_API_KEY", endpoint.key)

    async def ask() -> str:
        engine = OpenAIEngine(Remote(url=endpoint.url, model="smollm2"))
        chosen = await engine.complete(Request(Sampling(max_tokens=4, choices=("0", "1")), 0, (Message("user", "0 or 1?"),)))
        with pytest.raises(UserError, match="without adapters"):
            await engine.score("The capital of France is", " Paris, a city on the Seine.", 20)
        await engine.close()
        return chosen.text

    assert asyncio.run(ask()) in {"0", "1"}
