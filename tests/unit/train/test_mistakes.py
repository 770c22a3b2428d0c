"""A mistake in a training is told in one line, before workers start wherever that can be."""

import sys
from pathlib import Path

import pytest
from transformers import GptOssConfig

from tests.tiny_model import tiny_dataset, tiny_model
from xl.engines.models import ResolvedModel
from xl.errors import MissingExtra, UserError
from xl.train.job import Job
from xl.train.settings import Lora, Train
from xl.train.trainer import train
from xl.train.zero import load_model

MODEL = ResolvedModel("m", "m", "digest", None, None)


def test_a_logger_that_is_not_installed_is_told_before_anything_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r"pip install 'xl\[wandb\]'"):
        train(tiny_dataset(tmp_path / "pairs.jsonl"), MODEL, tmp_path / "out", Train(log_to=("wandb",)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("out", "why"), [("file", "File exists"), ("file/out", "Not a directory")])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, out: str, why: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"--out {tmp_path / out}: {why}"):
        train(tiny_dataset(tmp_path / "pairs.jsonl"), MODEL, tmp_path / out, Train())


def test_each_layer_for_an_adapter_must_be_there(tmp_path: Path) -> None:
    base = str(tiny_model(tmp_path / "base"))
    settings = Train(tune="lora", lora=Lora(target_modules=("q_proj", "v_porj", "mlp.up_proj")))
    with pytest.raises(UserError, match=r"no linear layer is called v_porj; there are down_proj, .*, v_proj$"):
        load_model(Job(base, "base", tmp_path, settings), {})


def test_a_model_without_weights_or_without_our_attention_cannot_be_loaded(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    job = Job(str(base), "base", tmp_path, Train())
    GptOssConfig(num_hidden_layers=1).save_pretrained(base)
    with pytest.raises(UserError, match=f"the model '{base}' cannot be loaded: GptOssForCausalLM does not support"):
        load_model(job, {})
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match=rf"the model '{base}' cannot be loaded: .*model.safetensors"):
        load_model(job, {})
