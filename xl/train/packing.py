"""Which documents a step learns, and how they lie in memory.

A step learns `global_batch` documents. Packing happens inside a step, so it changes what is computed at once, not what is learned: the
loss of a step is the same packed or not, and with any number of workers.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xl.train.tokens import Documents

IntArray = np.ndarray[Any, np.dtype[np.int64]]
Block = tuple[int, ...]
"""Numbers of the documents that lie behind each other in one block."""


@dataclass(frozen=True)
class MicroBatch:
    """Blocks that a worker computes at once. Shapes: [blocks, tokens] and [supervised tokens]."""

    input_ids: IntArray
    position_ids: IntArray
    """Count from 0 in every document, by which attention knows where one begins; padding is a document of its own."""
    predictors: IntArray
    """Places, in the flattened blocks, whose hidden state predicts a supervised token …"""
    targets: IntArray
    """… and those tokens."""


def num_steps(num_documents: int, global_batch: int, epochs: float, max_steps: int | None) -> int:
    """Steps of a training. The last step of an epoch may learn fewer documents than the others."""
    return max_steps or max(1, math.ceil(epochs * math.ceil(num_documents / global_batch)))


def documents_of(step: int, num_documents: int, global_batch: int, seed: int) -> IntArray:
    """The documents that a step (from 0) learns: the next ones of the epoch's own order, drawn from (seed, epoch)."""
    epoch, place = divmod(step, math.ceil(num_documents / global_batch))
    return _order(num_documents, seed, epoch)[place * global_batch : (place + 1) * global_batch]


@functools.lru_cache(maxsize=1)
def _order(num_documents: int, seed: int, epoch: int) -> IntArray:
    return np.random.default_rng([seed, epoch]).permutation(num_documents)


def pack(documents: Sequence[int], lengths: Sequence[int], max_length: int) -> list[Block]:
    """Put documents into as few blocks of at most `max_length` tokens as first-fit decreasing finds (Johnson, 1973).

    The longest document first, each into the first block that still has room. Equal lengths keep their order.
    """
    blocks: list[list[int]] = []
    room: list[int] = []
    for document, length in sorted(zip(documents, lengths, strict=True), key=lambda entry: -entry[1]):
        assert length <= max_length, f"a document of {length} tokens does not fit into {max_length}"
        place = next((n for n, free in enumerate(room) if free >= length), None)
        if place is None:
            place = len(blocks)
            blocks.append([])
            room.append(max_length)
        blocks[place].append(int(document))
        room[place] -= length
    return [tuple(block) for block in blocks]


def plan(documents: IntArray, lengths: IntArray, max_length: int, micro_batch: int, packing: bool) -> list[list[Block]]:
    """A step's micro-batches: blocks of like length together, so that little is padded. The number of workers plays no part."""
    own = [int(lengths[n]) for n in documents]
    blocks: list[Block] = pack(documents.tolist(), own, max_length) if packing else [(int(n),) for n in documents]
    blocks.sort(key=lambda block: -sum(int(lengths[n]) for n in block))
    return [blocks[n : n + micro_batch] for n in range(0, len(blocks), micro_batch)]


def share(micro_batches: list[list[Block]], rank: int, workers: int) -> list[list[Block] | None]:
    """A worker's share of a step. All shares are equally long, because workers wait for each other; None is an idle turn."""
    rounds = math.ceil(len(micro_batches) / workers)
    places = [turn * workers + rank for turn in range(rounds)]
    return [micro_batches[n] if n < len(micro_batches) else None for n in places]


def assemble(blocks: list[Block], documents: Documents, prompt_loss: bool, pad_id: int) -> MicroBatch:
    """Lay documents out in blocks, padded to the longest block."""
    width = max(sum(int(documents.lengths[n]) for n in block) for block in blocks)
    input_ids = np.full((len(blocks), width), pad_id, np.int64)
    position_ids = np.empty((len(blocks), width), np.int64)
    predictors, targets = [], []
    for row, block in enumerate(blocks):
        start = 0
        for number in block:
            document = documents[number]
            end = start + len(document.ids)
            input_ids[row, start:end] = document.ids
            position_ids[row, start:end] = np.arange(end - start)
            learned = np.array(document.targets(prompt_loss), np.int64)
            predictors.append(row * width + start + learned - 1)
            targets.append(document.ids[learned])
            start = end
        position_ids[row, start:] = np.arange(width - start)
    return MicroBatch(input_ids, position_ids, np.concatenate(predictors), np.concatenate(targets).astype(np.int64))


def num_supervised(documents: IntArray, data: Documents, prompt_loss: bool) -> int:
    """Supervised tokens of documents, counted before they are packed."""
    first = np.ones_like(data.num_prompt[documents]) if prompt_loss else np.maximum(1, data.num_prompt[documents])
    return int((data.lengths[documents] - first).sum())
