"""Held-out pairs are trained on by nobody, and a model's loss on them is the one that a training would report."""

import json
from pathlib import Path

import pytest

from tests.tiny_model import tiny_dataset, tiny_model
from xl.errors import UserError
from xl.train.held_out import HELD_OUT, TRAIN, held_out_losses, is_held_out, split_dataset
from xl.train.settings import Train
from xl.train.tokens import open_documents, read_rows


def ids(path: Path) -> set[str]:
    return {row["id"] for row in read_rows(path)}


def test_a_split_loses_no_pair_and_more_pairs_move_none_across(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path / "pairs.jsonl", num_rows=200)
    split_dataset(dataset, Train(), 0.2, 7, tmp_path / "split")
    trained, held_out = ids(tmp_path / "split" / TRAIN), ids(tmp_path / "split" / HELD_OUT)
    assert not trained & held_out and trained | held_out == ids(dataset)
    assert 20 < len(held_out) < 60
    of_seeds = [{row["id"] for row in read_rows(dataset) if is_held_out(row, 0.2, seed)} for seed in (7, 8)]
    assert held_out == of_seeds[0] != of_seeds[1]


def test_translations_of_an_item_are_on_one_side(tmp_path: Path) -> None:
    """Else a model that learned the German answer by heart would be praised for the Turkish one."""
    rows = [row | {"id": f"{row['id']}-{lang}", "document": row["id"]} for lang in ("de", "tr") for row in read_rows(tiny(tmp_path))]
    dataset = tmp_path / "aligned.jsonl"
    dataset.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    split_dataset(dataset, Train(), 0.2, 7, tmp_path / "split")
    trained, held_out = ({pair.rpartition("-")[0] for pair in ids(tmp_path / "split" / side)} for side in (TRAIN, HELD_OUT))
    assert not trained & held_out and 20 < len(held_out) < 60


def tiny(folder: Path) -> Path:
    return tiny_dataset(folder / "pairs.jsonl", num_rows=200)


def test_only_pairs_that_would_be_learned_are_split(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path / "pairs.jsonl", num_rows=200)
    split_dataset(dataset, Train(languages=("sw",)), 0.2, 7, tmp_path / "split")
    rows = [row for side in (TRAIN, HELD_OUT) for row in read_rows(tmp_path / "split" / side)]
    assert len(rows) > 30 and {row["lang"] for row in rows} == {"sw"}


def test_a_side_without_pairs_is_an_error_that_leaves_nothing_behind(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path / "pairs.jsonl", num_rows=3)
    with pytest.raises(UserError, match=r"leaves 3 pairs to train on and 0 held out"):
        split_dataset(dataset, Train(), 0.001, 7, tmp_path / "split")
    assert not (tmp_path / "split").exists()


def test_the_loss_is_the_models_own_on_the_response_alone(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from xl.train.prompts import give_chat_template

    folder = tiny_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    give_chat_template(tokenizer)
    tokenizer.save_pretrained(folder)
    rows = tiny_dataset(tmp_path / "pairs.jsonl", num_rows=6)
    settings = Train(precision="fp32", max_length=96, logits_chunk=5, styles={"nowhere": "Be brief."})
    found = held_out_losses(folder, rows, tmp_path / "tokens", settings)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    data = open_documents(tmp_path / "tokens")
    assert len(found.summed) == len(data) == 6
    for number, (loss, num_tokens) in enumerate(zip(found.summed, found.num_tokens, strict=True)):
        tokens = torch.from_numpy(data[number].ids.copy()).long()[None]
        labels = tokens.clone()
        labels[0, : data[number].num_prompt] = -100
        with torch.no_grad():
            own = model(input_ids=tokens, labels=labels).loss
        assert num_tokens == int((labels != -100).sum())
        assert loss / num_tokens == pytest.approx(float(own), rel=1e-4)
    assert json.loads((tmp_path / "tokens" / "summary.json").read_text())["num_documents"] == 6
