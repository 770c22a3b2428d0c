"""What is exported is the model that was trained, and it loads by itself."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny_model import tiny_model
from tests.training import Bench, greedy, prompts_of, training
from xl.train.prompts import request

RENAMED = ("gpt_neox", "mixtral")
"""Families whose weights transformers renames or merges as it loads them."""


@pytest.fixture(scope="module")
def trained(bench: Bench) -> Path:
    adapter = {"tune": "lora", "lora": {"rank": 4, "dropout": 0.1}}
    lora = {**adapter, "max_steps": 6}
    ways = [training(f"full{zero}", zero=zero, max_steps=6) for zero in (1, 3)]
    ways += [training(f"lora{zero}", zero=zero, **lora) for zero in (1, 3)]
    bench.fork(*ways, training("killed-lora", kill=(0, 5), zero=3, **lora), killed=True)
    others = [training("revised", base=hub_model(bench.root, "step-1000"), revision="step-1000", max_steps=1, **adapter)]
    for family in RENAMED:
        tiny_model(bench.root / family, family)
        (bench.root / family / "generation_config.json").write_text('{"eos_token_id": 1, "temperature": 0.6}')  # cannot be saved
        others += [training(f"{family}{zero}", base=family, zero=zero, answers=zero == 1, max_steps=2) for zero in (1, 3)]
    bench.run(training("killed-lora", zero=3, **lora), *others)
    return bench.root


def hub_model(root: Path, revision: str) -> str:
    """Id of a model of which the tests' hub has this revision alone."""
    folder, commit = root / "hub" / "models--org--tiny", "0" * 40
    for name in ("refs", "snapshots"):
        (folder / name).mkdir(parents=True)
    (folder / "refs" / revision).write_text(commit)
    (folder / "snapshots" / commit).symlink_to(root / "base")
    return "org/tiny"


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


@pytest.mark.parametrize("family", RENAMED)
def test_weights_have_the_names_that_their_architecture_is_published_with(trained: Path, family: str) -> None:
    published = load_file(trained / family / "model.safetensors")
    first, third = (load_file(trained / f"{family}{zero}" / "model" / "model.safetensors") for zero in (1, 3))
    assert first.keys() == third.keys() == published.keys()
    assert all(torch.allclose(first[name], third[name], atol=1e-5) for name in first)
    model = AutoModelForCausalLM.from_pretrained(trained / f"{family}1" / "model", dtype=torch.float32)
    assert dict(model.named_parameters()).keys() != published.keys()
    own = json.loads((trained / f"{family}1" / "answers.json").read_text("utf-8"))
    assert greedy(model.eval(), prompts_of(trained / f"{family}1" / "tokens")) == own


def test_a_revision_of_a_hub_model_is_the_one_that_is_tuned_and_merged(trained: Path) -> None:
    adapter = json.loads((trained / "revised" / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("org/tiny", "step-1000")
    assert (trained / "revised" / "model" / "model.safetensors").exists()
