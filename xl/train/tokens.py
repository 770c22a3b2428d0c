"""From pairs to token ids: tokenised once into an Arrow file, which every worker maps into its memory.

tokens/documents.arrow    id, ids (prompt and response), num_prompt (how many of them are the prompt's)
tokens/summary.json       what came of the rows; the marker that the file is whole
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from xl import storage
from xl.errors import UserError
from xl.evaluate import tables
from xl.records import Row
from xl.store import read_json
from xl.train.prompts import TEMPLATE_SETTINGS, defuse, request_of, special_tokens, stop_ids

Ids = np.ndarray[Any, np.dtype[np.int32]]
Counts = np.ndarray[Any, np.dtype[np.int64]]

SCHEMA = pa.schema([("id", pa.string()), ("ids", pa.list_(pa.int32())), ("num_prompt", pa.int32())])
COLUMNS = ("id", "instruction", "response", "lang", "language", "source")
OPTIONAL_COLUMNS = ("request", "tag", "document")
"""What the user says where it is not the instruction with a request for the language, a name that a style can be given by, and what
translations of a text, or its parts, have in common."""
_BATCH_ROWS = 1000


@dataclass
class TokenSummary:
    """What came of the rows: in = documents + dropped."""

    num_rows: int = 0
    num_documents: int = 0
    num_truncated: int = 0
    """Documents whose response was cut. They end without an end-of-text token: a model is not to learn to stop in mid-sentence."""
    dropped: Counter[str] = field(default_factory=Counter)
    num_tokens: int = 0
    num_response_tokens: int = 0
    num_styled: Counter[str] = field(default_factory=Counter)
    """Documents whose request ends with a style, per source or tag."""


@dataclass(frozen=True)
class Document:
    """A tokenised pair. Of `ids`, the first `num_prompt` are the prompt."""

    ids: Ids
    num_prompt: int

    def targets(self, prompt_loss: bool) -> range:
        """Places of the tokens that are learned. The very first token has nothing before it that could predict it."""
        return range(1 if prompt_loss else max(1, self.num_prompt), len(self.ids))


@dataclass(frozen=True)
class Documents:
    """All documents of a training, memory-mapped."""

    batches: list[pa.RecordBatch]
    starts: Counts
    """Number of the first document of each batch."""
    lengths: Counts
    """Tokens of each document."""
    num_prompt: Counts

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Document:
        batch = int(np.searchsorted(self.starts, index, side="right")) - 1
        ids = self.batches[batch].column("ids")[index - int(self.starts[batch])].values
        return Document(ids.to_numpy(), int(self.num_prompt[index]))


def open_documents(folder: Path) -> Documents:
    """The documents that `write_documents` wrote."""
    with pa.memory_map(str(storage.local_copy(folder) / "documents.arrow")) as file, pa.ipc.open_file(file) as reader:
        batches = [reader.get_batch(n) for n in range(reader.num_record_batches)]
    lengths = [np.diff(batch.column("ids").offsets.to_numpy()).astype(np.int64) for batch in batches]
    num_prompt = [batch.column("num_prompt").to_numpy().astype(np.int64) for batch in batches]
    starts = np.cumsum([0, *(len(batch) for batch in batches[:-1])])
    return Documents(batches, starts, np.concatenate(lengths), np.concatenate(num_prompt))


def write_documents(rows: Iterable[Row], tokenizer: Any, max_length: int, styles: Mapping[str, str], folder: Path) -> TokenSummary:
    """Tokenise rows (`COLUMNS`) into a folder, which is there whole or not at all.

    Raises:
        UserError: no row is left to train on, a style's source does not occur, or the chat template does not begin a
            conversation with its own prompt.
    """
    summary = TokenSummary()
    names: set[str] = set()
    with storage.replaced(folder, "summary.json") as aside:
        with pa.ipc.new_file(str(aside / "documents.arrow"), SCHEMA) as writer:
            for chunk in chunks(rows):
                names.update(style_name(row) for row in chunk)
                encoded = _encode(chunk, tokenizer, max_length, styles, summary)
                if encoded:
                    writer.write_batch(pa.RecordBatch.from_pylist(encoded, schema=SCHEMA))
        if unknown := sorted(set(styles) - names):
            there = ", ".join(sorted(names)[:8])
            raise UserError(f"train.styles: no row comes from {', '.join(unknown)}; the sources and tags are {there}")
        if not summary.num_documents:
            raise UserError(f"there is nothing to train on: {summary.num_rows} rows, dropped: {dict(summary.dropped)}")
        (aside / "summary.json").write_text(json.dumps(vars(summary), indent=1), "utf-8")
    return summary


def read_summary(folder: Path) -> TokenSummary | None:
    """The account of tokenised documents, or None where there are none yet."""
    found = read_json(folder / "summary.json")
    return None if found is None else TokenSummary(**found)


def _encode(rows: list[Row], tokenizer: Any, max_length: int, styles: Mapping[str, str], summary: TokenSummary) -> list[Row]:
    special, stops = special_tokens(tokenizer), stop_ids(tokenizer)
    faults = [_fault(row) for row in rows]
    sound = [row for row, fault in zip(rows, faults, strict=True) if fault is None]
    summary.num_rows += len(rows)
    summary.dropped.update(filter(None, faults))
    if not sound:
        return []
    encoded = []
    for row, (prompt, both) in zip(sound, _tokens([_render(row, tokenizer, styles, special) for row in sound], tokenizer), strict=True):
        if len(prompt) >= max_length:
            summary.dropped["prompt_too_long"] += 1
            continue
        whole = [*both, *([] if both[-1] in stops else stops[:1])]
        ids = whole[:max_length]
        summary.num_truncated += len(whole) > max_length
        encoded.append({"id": row["id"], "ids": ids, "num_prompt": len(prompt)})
        summary.num_documents += 1
        summary.num_tokens += len(ids)
        summary.num_response_tokens += len(ids) - len(prompt)
        summary.num_styled[style_name(row)] += style_name(row) in styles
    return encoded


def _tokens(texts: Sequence[tuple[str, str]], tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Tokens of each prompt, and of it with its response.

    They are tokenised together, for some tokenizers write another mark at the beginning of a text; apart where they share a token.
    """
    prompts, wholes = (tokenizer(each, add_special_tokens=False).input_ids for each in ([p for p, _ in texts], [p + r for p, r in texts]))
    return [
        (prompt, whole if whole[: len(prompt)] == prompt else [*prompt, *tokenizer(response, add_special_tokens=False).input_ids])
        for prompt, whole, (_, response) in zip(prompts, wholes, texts, strict=True)
    ]


def _fault(row: Row) -> str | None:
    """What a row lacks that would be trained on. One with a request of its own needs neither instruction nor language."""
    needed = ("response",) if row.get("request") else ("instruction", "language", "response")
    return next((f"empty_{name}" for name in needed if not (row[name] or "").strip()), None)


def _render(row: Row, tokenizer: Any, styles: Mapping[str, str], special: Any) -> tuple[str, str]:
    """A row's prompt and response as text, the response with what the chat template puts behind it."""
    style = styles.get(style_name(row), "")
    asked = request_of(row, style)
    user = {"role": "user", "content": defuse(asked, special)}
    answer = {"role": "assistant", "content": defuse(row["response"].strip(), special)}
    prompt: str = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True, **TEMPLATE_SETTINGS)
    whole: str = tokenizer.apply_chat_template([user, answer], tokenize=False, **TEMPLATE_SETTINGS)
    if not whole.startswith(prompt):
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} words a finished conversation differently from its prompt; "
            "give the model folder a template that begins with the prompt"
        )
    return prompt, whole[len(prompt) :].rstrip()


def style_name(row: Row) -> str:
    """What a row's style goes by: the tag of its component in a mixture, or else its source."""
    name: str = row.get("tag") or row["source"]
    return name


def read_rows(dataset: Path) -> Iterator[Row]:
    """The rows of a dataset: a Parquet or JSON Lines file, or a folder of Parquet files. What is null in a column is empty text.

    Raises:
        UserError: there is no such dataset, or one of its files cannot be read, lacks a column, or has something other than text in it.
    """
    for file in dataset_files(dataset):
        for number, row in enumerate(tables.read_rows(str(file), COLUMNS, OPTIONAL_COLUMNS), 1):
            pair = {name: "" if row.get(name) is None else row[name] for name in (*COLUMNS, *OPTIONAL_COLUMNS)}
            if wrong := [name for name, value in pair.items() if not isinstance(value, str)]:
                raise UserError(f"{file}: row {number}: `{wrong[0]}` must be text, not {pair[wrong[0]]!r:.40}")
            yield pair


def dataset_files(dataset: Path) -> list[Path]:
    """The files of a dataset, in a fixed order. Raises UserError where there are none."""
    files = [dataset] if dataset.is_file() else sorted(dataset.glob("*.parquet"))
    if not files:
        raise UserError(f"{dataset}: no dataset; a Parquet or JSON Lines file is wanted, or a folder of Parquet files")
    return files


def dataset_digest(dataset: Path) -> str:
    """Digest of a dataset's content, whatever its files are called."""
    hasher = hashlib.blake2b(digest_size=16)
    for path in dataset_files(dataset):
        with path.open("rb") as file:
            hasher.update(hashlib.file_digest(file, "blake2b").digest())
    return hasher.hexdigest()


def chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in lists of a thousand, the last one shorter."""
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, _BATCH_ROWS)):
        yield chunk
