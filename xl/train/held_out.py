"""Pairs that a training is not shown, and what a model's loss on them is."""

import math
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xl.errors import UserError, require
from xl.evaluate.intervals import Estimate, estimate_mean
from xl.records import Row, seeded_rank
from xl.storage import replaced
from xl.train.choose import chosen_rows
from xl.train.packing import assemble
from xl.train.precision import with_precision
from xl.train.settings import Train
from xl.train.tokens import COLUMNS, OPTIONAL_COLUMNS, chunks, open_documents, read_rows, style_name, write_documents
from xl.train.weights import load_tokenizer, load_weights

_SCHEMA = pa.schema([(name, pa.string()) for name in (*COLUMNS, *OPTIONAL_COLUMNS)])

TRAIN, HELD_OUT = "train.parquet", "held_out.parquet"
"""A dataset in two files, of which a training sees the first one alone."""

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class HeldOutLosses:
    """Of each held-out pair: cross-entropy in nats, summed over its supervised tokens, and how many those are."""

    summed: list[float]
    num_tokens: list[int]


def is_held_out(pair: Row, ratio: float, seed: int) -> bool:
    """Whether a pair is held out: by its document and the seed alone, whatever other pairs there are.

    So translations and paragraphs of one text stay together. A pair that names no document goes by its id.
    """
    return seeded_rank(seed, "held-out pair", pair.get("document") or pair["id"]) < ratio * 2**64


def split_dataset(dataset: Path, settings: Train, ratio: float, seed: int, out: Path) -> None:
    """Put the pairs that a training with these settings would learn from into OUT/`TRAIN` and OUT/`HELD_OUT`, unless that is done.

    Raises:
        UserError: the dataset cannot be read, or one of the sides has less than two pairs.
    """
    if out.exists():
        return
    num_pairs = {TRAIN: 0, HELD_OUT: 0}
    with replaced(out, HELD_OUT) as aside:
        with pq.ParquetWriter(aside / TRAIN, _SCHEMA) as train, pq.ParquetWriter(aside / HELD_OUT, _SCHEMA) as held_out:
            for chunk in chunks(chosen_rows(read_rows(dataset), settings)):
                sides: dict[str, list[Row]] = {TRAIN: [], HELD_OUT: []}
                for row in chunk:
                    sides[HELD_OUT if is_held_out(row, ratio, seed) else TRAIN].append(row)
                for writer, (side, rows) in zip((train, held_out), sides.items(), strict=True):
                    writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
                    num_pairs[side] += len(rows)
        if min(num_pairs.values()) < 2:
            counts = f"{num_pairs[TRAIN]:,} pairs to train on and {num_pairs[HELD_OUT]:,} held out"
            raise UserError(f"{dataset}: to hold out a share of {ratio:g} leaves {counts}; at least two of each are wanted")


def held_out_losses(model: Path, pairs: Path, tokens: Path, settings: Train) -> HeldOutLosses:
    """The loss that a training with these settings would report of each pair, one by one and without dropout.

    Args:
        model: folder of a tuned model.
        pairs: file of the pairs.
        tokens: folder that the tokenised pairs are put into.
        settings: the training's. With `gpus_per_worker` the model is run on one GPU.

    Raises:
        UserError: no pair is short enough to be learned, or the model cannot be loaded.
    """
    torch = require("torch", "train")
    from xl.train.loop import on_device
    from xl.train.loss import SupervisedLoss

    rows = list(read_rows(pairs))
    names = {style_name(row) for row in rows}
    styles = {name: style for name, style in settings.styles.items() if name in names}
    write_documents(rows, load_tokenizer(str(model)), settings.max_length, styles, tokens)
    data = open_documents(tokens)
    torch.set_num_threads(settings.cpus_per_worker)
    device = torch.device("cuda" if settings.gpus_per_worker else "cpu")
    dtype = torch.bfloat16 if with_precision(settings).precision == "bf16" else torch.float32
    causal = load_weights(str(model), dtype).to(device)
    loss = SupervisedLoss(causal, settings.logits_chunk).eval()
    found = HeldOutLosses([], [])
    with torch.no_grad():
        for number in range(len(data)):
            batch = assemble([(number,)], data, settings.prompt_loss, pad_id=0)
            found.summed.append(float(loss(*on_device(batch, device))))
            found.num_tokens.append(len(batch.targets))
    return found


def loss_estimate(losses: HeldOutLosses, seed: int) -> Estimate | None:
    """Mean loss per token with its 95 % interval over pairs; None where the training diverged and a loss is no number.

    The interval is the normal one about the linearised standard error of a ratio (`estimate_mean`): losses have no upper bound.
    """
    if not all(map(math.isfinite, losses.summed)):
        return None
    per_token = [loss / num for loss, num in zip(losses.summed, losses.num_tokens, strict=True)]
    found = estimate_mean(per_token, range(len(per_token)), seed, losses.num_tokens)
    margin = _NORMAL_95 * found.standard_error
    return Estimate(found.value, found.standard_error, found.value - margin, found.value + margin)
