"""Greedy answers of vLLM in fp32 on CPU; the tests of exported models start it and read what it prints.

python -m tests.vllm_answers '{"requests": ["…"], "loads": [{"model": FOLDER, "adapter": FOLDER or null}, …]}'
"""

import json
import os
import sys
from typing import Any

from tests.training import MAX_NEW_TOKENS, NUM_PROMPTS
from xl.engines.vllm import engine_arguments, executor_arguments, set_cpu_environment
from xl.recipe import Model


def main(loads: list[dict[str, str | None]], requests: list[str]) -> None:
    print("RESULT", json.dumps([_answers(load["model"], load["adapter"], requests) for load in loads]))  # type: ignore[arg-type]


def _answers(folder: str, adapter: str | None, requests: list[str]) -> dict[str, list[list[int]]]:
    """Prompts with their answers as token ids: the model's own as `plain`, those with the adapter as `adapted`."""
    model = Model(model=folder, dtype="float32", max_model_len=256, max_num_seqs=NUM_PROMPTS)
    set_cpu_environment(model)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # its core in this process, which has imported what it needs
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    with_adapter: dict[str, Any] = {"enable_lora": True, "max_lora_rank": 8} if adapter else {}
    llm = LLM(**engine_arguments(model, folder), **executor_arguments(model), **with_adapter)
    chats: Any = [[{"role": "user", "content": request}] for request in requests]

    def ask(lora: LoRARequest | None) -> list[list[int]]:
        outputs = llm.chat(chats, SamplingParams(temperature=0, max_tokens=MAX_NEW_TOKENS), lora_request=lora, use_tqdm=False)
        return [[*output.prompt_token_ids, *output.outputs[0].token_ids] for output in outputs]

    return {"plain": ask(None), **({"adapted": ask(LoRARequest("tuned", 1, adapter))} if adapter else {})}


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
