"""Pairs become tokens as they will be served, and every row is accounted for."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny_model import tiny_tokenizer
from xl.errors import UserError
from xl.train.prompts import BASE_TEMPLATE, give_chat_template, request, stop_ids, without_thinking
from xl.train.tokens import Document, Documents, open_documents, read_rows, read_summary, write_documents

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def row(response: str, instruction: str = "Write about the river.", source: str = "web") -> dict[str, Any]:
    return {"id": "0" * 32, "instruction": instruction, "response": response, "language": "German", "source": source}


def written(folder: Path, tokenizer: Any, *rows: dict[str, Any], max_length: int = 200, styles: dict[str, str] | None = None) -> Documents:
    give_chat_template(tokenizer)
    write_documents(rows, tokenizer, max_length, styles or {}, folder / "tokens")
    return open_documents(folder / "tokens")


def parts(document: Document, tokenizer: Any) -> tuple[str, str]:
    return tokenizer.decode(document.ids[: document.num_prompt]), tokenizer.decode(document.ids[document.num_prompt :])


def test_the_prompt_is_just_what_a_server_makes_of_the_same_request(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    document = written(tmp_path, tokenizer, row("river winter"))[0]
    messages = [{"role": "user", "content": request("Write about the river.", "German")}]
    served = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert document.ids[: document.num_prompt].tolist() == served
    assert served.count(tokenizer.bos_token_id) == 1 and served[0] == tokenizer.bos_token_id
    assert parts(document, tokenizer)[1] == "river winter<eos>"


def test_a_chat_model_keeps_its_own_template_and_learns_its_end_of_turn(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    prompt, response = parts(written(tmp_path, tokenizer, row("river"))[0], tokenizer)
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert response == "river<|im_end|>"
    assert stop_ids(tokenizer) == [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]


def test_a_response_is_tokenised_where_it_stands(tmp_path: Path) -> None:
    """SentencePiece models put a mark at the beginning of a text, and a response is none: an evaluator must learn `2`, not the mark."""
    pieces = ["<unk>", "<eos>", "▁", *dict.fromkeys("### Instruction:\n### Response:\nAnswer in German.Write about the river.2")]
    tokenizer = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")
    assert fast.tokenize("2") == ["▁", "2"]
    document = written(tmp_path, fast, row("2"))[0]
    assert fast.convert_ids_to_tokens(document.ids[document.num_prompt :].tolist()) == ["2", "<eos>"]


def test_a_model_that_can_think_learns_to_answer_without_and_is_served_so(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    thinking = "{% if not enable_thinking | default(true) %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    tokenizer.chat_template = BASE_TEMPLATE.replace("{% elif", thinking + "{% elif", 1)
    prompt, response = parts(written(tmp_path, tokenizer, row("river"))[0], tokenizer)
    assert prompt.endswith("### Response:\n<think>\n\n</think>\n\n") and response == "river<eos>"
    tokenizer.chat_template = without_thinking(tokenizer.chat_template)
    messages = [{"role": "user", "content": request("Write about the river.", "German")}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == prompt


def test_web_text_cannot_speak_in_control_tokens(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    document = written(tmp_path, tokenizer, row("river <eos> winter <bos>"))[0]
    ids = document.ids[document.num_prompt :].tolist()
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.bos_token_id not in ids


def test_every_row_is_accounted_for_and_a_cut_response_does_not_end(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    rows = [row("river"), row(" "), row("river " * 200), row("river", instruction="window " * 200)]
    rows += [{**row("river"), "language": None}, {**row("river"), "instruction": None}]
    data = written(tmp_path, tokenizer, *rows, max_length=100)
    summary = read_summary(tmp_path / "tokens")
    assert summary is not None
    assert (summary.num_rows, summary.num_documents, summary.num_truncated) == (6, 2, 1)
    assert summary.dropped == {"empty_response": 1, "empty_instruction": 1, "empty_language": 1, "prompt_too_long": 1}
    assert len(data[1].ids) == 100 and tokenizer.eos_token_id not in data[1].ids
    assert summary.num_response_tokens == sum(len(data[n].targets(prompt_loss=False)) for n in range(2))


def test_a_pairs_own_request_is_used_as_it_is_with_the_style_of_its_tag(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    asked = {**row("river"), "request": "Wo ist der Fluss?", "tag": "parallel", "instruction": None, "language": None}
    data = written(tmp_path, tokenizer, asked, row("river"), styles={"parallel": "Kurz."})
    assert "Wo ist der Fluss? Kurz.\n" in parts(data[0], tokenizer)[0]
    assert "Answer in German.\n" in parts(data[1], tokenizer)[0]


def test_a_style_follows_the_request_for_its_source_alone(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    data = written(tmp_path, tokenizer, row("river"), row("river", source="books"), styles={"web": "Write like a web page."})
    assert "Answer in German. Write like a web page.\n" in parts(data[0], tokenizer)[0]
    assert "Answer in German.\n" in parts(data[1], tokenizer)[0]
    with pytest.raises(UserError, match="no row comes from wbe; the sources and tags are web"):
        written(tmp_path, tokenizer, row("river"), styles={"wbe": "x"})


def test_documents_are_found_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xl.train.tokens._BATCH_ROWS", 3)
    tokenizer = tiny_tokenizer()
    data = written(tmp_path, tokenizer, *(row(f"number {n}") for n in range(8)))
    assert [parts(data[n], tokenizer)[1] for n in range(8)] == [f"number {n}<eos>" for n in range(8)]
    assert [len(data[n].ids) for n in range(8)] == data.lengths.tolist()


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to train on: 1 rows"):
        written(tmp_path, tiny_tokenizer(), row(" "))


def json_lines(path: Path, *pairs: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps({**pair, "lang": "de"}) + "\n" for pair in pairs), "utf-8")
    return path


def test_a_column_is_read_wherever_in_the_dataset_it_first_appears(tmp_path: Path) -> None:
    asked = {"request": "Wo ist der Fluss?", "tag": "parallel"}
    pairs = [{**row("river " * 200_000), "tag": None}, {**row("river"), **asked}]
    read = list(read_rows(json_lines(tmp_path / "pairs.jsonl", *pairs)))
    assert (read[0]["request"], read[0]["tag"]) == ("", "") and asked.items() <= read[1].items()
    for number, pair in enumerate(pairs):
        pq.write_table(pa.Table.from_pylist([{**pair, "lang": "de"}]), tmp_path / f"{number}.parquet")
    assert list(read_rows(tmp_path)) == read


def test_a_line_that_cannot_be_learned_from_is_named(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "pairs.jsonl", row("river"), {**row("river"), "instruction": ["Write."]})
    with pytest.raises(UserError, match=r"pairs\.jsonl: row 2: `instruction` must be text, not \['Write\.'\]"):
        list(read_rows(path))
    path.write_text(path.read_text("utf-8")[:-20], "utf-8")
    with pytest.raises(UserError, match=r"pairs\.jsonl: line 2 is not JSON"):
        list(read_rows(path))
    with pytest.raises(UserError, match=r"pairs\.jsonl: no column 'source' in line 1"):
        list(read_rows(json_lines(path, {"id": "1", "instruction": "Write.", "response": "river", "language": "German"})))
