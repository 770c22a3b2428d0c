"""Real vLLM on CPU with packaged weights. The engine takes a minute to start, so one serves all tests here."""

import json
import math
import shutil
import subprocess
import sys

import pytest

from tests.strace import trace
from tests.support import ROOT

pytestmark = pytest.mark.engine
_SCRIPT = """
import asyncio, json
from xl.ask import Message, Request, Sampling
from xl.engines.models import prepare, resolve
from xl.engines.vllm import VLLMEngine
from xl.recipe import Model

async def main():
    model = Model(model="packaged/smollm2-135m-instruct", max_model_len=512, max_num_seqs=8)
    found = resolve(model.model)
    prepare(found)
    engine = VLLMEngine(model, found.path, found.chat)
    ask = (Message("user", "Say one word about the sea."),)
    hot = Sampling(max_tokens=12, temperature=1.0)
    drawn = [(await engine.complete(Request(hot, seed, ask))).text for seed in (1, 1, 2)]
    choice = await engine.complete(Request(Sampling(max_tokens=4, choices=("0", "1", "2"), num_logprobs=10), 0, ask))
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    shaped = await engine.complete(Request(Sampling(max_tokens=30, json_schema=schema), 0, ask))
    likely = await engine.score("The capital of France is", " Paris, a city on the Seine.", 20)
    unlikely = await engine.score("The capital of France is", " banana table seven green.", 20)
    await engine.close()
    print("RESULT", json.dumps({"chat": engine.chat, "drawn": drawn, "choice": choice.text, "logprobs": dict(choice.first_logprobs),
        "shaped": shaped.text, "likely": likely.mean, "unlikely": unlikely.mean, "tokens": [choice.prompt_tokens, choice.output_tokens]}))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict:  # type: ignore[type-arg]
    folder = tmp_path_factory.mktemp("engine")
    (folder / "script.py").write_text(_SCRIPT, "utf-8")
    command = [sys.executable, str(folder / "script.py")]
    if shutil.which("strace"):
        stdout, contacted, _ = trace(command, folder / "log")
    else:
        stdout, contacted = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600, cwd=ROOT).stdout, None
    said = next(line for line in stdout.splitlines() if line.startswith("RESULT")).removeprefix("RESULT ")
    return {**json.loads(said), "contacted": contacted}


def test_the_engine_contacts_no_other_machine(answers: dict) -> None:  # type: ignore[type-arg]
    if answers["contacted"] is None:
        pytest.skip("strace is not installed")
    assert answers["contacted"] == set(), "vLLM or the hub's client called another machine"


def test_a_seed_gives_the_same_draw_again_and_another_seed_another(answers: dict) -> None:  # type: ignore[type-arg]
    first, again, other = answers["drawn"]
    assert first == again != other


def test_a_choice_is_one_of_the_choices_and_has_its_log_probabilities(answers: dict) -> None:  # type: ignore[type-arg]
    assert answers["choice"] in {"0", "1", "2"} and answers["tokens"][1] == 1
    assert sum(math.exp(answers["logprobs"][digit]) for digit in "012") == pytest.approx(1, abs=1e-3)


def test_a_json_schema_shapes_the_answer(answers: dict) -> None:  # type: ignore[type-arg]
    assert json.loads(answers["shaped"])["n"] in {1, 2}


def test_a_sensible_continuation_scores_higher_and_tokens_are_counted(answers: dict) -> None:  # type: ignore[type-arg]
    assert answers["likely"] > answers["unlikely"]
    assert answers["chat"] and min(answers["tokens"]) > 0


def test_packaged_weights_read_words_not_letters() -> None:
    from transformers import AutoTokenizer

    from xl.engines.models import prepare, resolve

    found = resolve("packaged/gemma-3-270m")
    prepare(found)
    tokenizer = AutoTokenizer.from_pretrained(found.path)
    assert tokenizer.convert_ids_to_tokens(tokenizer("The river is long.")["input_ids"]) == ["<bos>", "The", "▁river", "▁is", "▁long", "."]
    assert tokenizer.decode(tokenizer("Ein Haus: naïve  x 🙂", add_special_tokens=False)["input_ids"]) == "Ein Haus: naïve  x 🙂"
