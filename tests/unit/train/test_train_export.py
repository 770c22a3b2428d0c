"""What is exported is the model that was trained, and it loads by itself."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training import Bench, greedy, prompts_of, training
from xl.train.prompts import request


@pytest.fixture(scope="module")
def trained(bench: Bench) -> Path:
    lora = {"tune": "lora", "lora": {"rank": 4, "dropout": 0.1}, "max_steps": 6}
    ways = [training(f"full{zero}", zero=zero, max_steps=6) for zero in (1, 3)]
    ways += [training(f"lora{zero}", zero=zero, **lora) for zero in (1, 3)]
    bench.run(*ways, training("killed-lora", kill=(0, 5), zero=3, **lora), killed=True)
    bench.run(training("killed-lora", zero=3, **lora))
    return bench.root


def test_a_full_model_is_the_same_from_every_zero_stage_and_begins_a_new_training_where_it_ended(trained: Path) -> None:
    first, third = (load_file(trained / out / "model" / "model.safetensors") for out in ("full1", "full3"))
    base = load_file(trained / "base" / "model.safetensors")
    assert first.keys() == third.keys() == base.keys()
    assert all(torch.allclose(first[name], third[name], atol=1e-5) for name in first)
    assert not any(torch.allclose(first[name], base[name], atol=1e-5) for name in first)


def test_merged_model_and_adapter_answer_alike(trained: Path) -> None:
    for out in ("lora1", "lora3"):
        prompts = prompts_of(trained / out / "tokens")
        base = AutoModelForCausalLM.from_pretrained(trained / "base", dtype=torch.float32)
        merged = AutoModelForCausalLM.from_pretrained(trained / out / "model", dtype=torch.float32)
        before = greedy(base, prompts)
        adapted = greedy(PeftModel.from_pretrained(base, trained / out / "adapter").eval(), prompts)
        assert greedy(merged.eval(), prompts) == adapted
        assert adapted != before


def test_a_killed_adapter_training_with_dropout_ends_as_an_undisturbed_one(trained: Path, bench: Bench) -> None:
    assert bench.losses("killed-lora") == pytest.approx(bench.losses("lora3"), rel=1e-6)


def test_the_folder_says_how_it_is_to_be_prompted_and_sampled(trained: Path) -> None:
    for folder in (trained / "full1" / "model", trained / "lora1" / "adapter", trained / "lora1" / "model"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = tokenizer.apply_chat_template([{"role": "user", "content": request("Name a river.", "German")}], tokenize=False)
        assert text == "<bos>### Instruction:\nName a river. Answer in German.\n\n### Response:\n"
        card = (folder / "README.md").read_text("utf-8")
        assert "base_model: " in card and "| pairs | 40 of 40 rows |" in card
    model = AutoModelForCausalLM.from_pretrained(trained / "full1" / "model")
    assert (model.generation_config.temperature, model.generation_config.top_p) == (0.7, 0.9)
    assert model.generation_config.eos_token_id == [1]
