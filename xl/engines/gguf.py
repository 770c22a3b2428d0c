"""Tokenizers out of GGUF files.

A GGUF file of Gemma keeps the pieces of its tokenizer with their scores, not the list of merges. What transformers makes of
that cuts text into single characters, without a word of warning, and the model then answers nonsense. A piece's score is minus
the rank of the merge that makes it, so the merges can be had back.
"""

from pathlib import Path
from typing import Any

from xl.errors import require

_NORMAL, _CONTROL = 1, 3
"""Piece types in GGUF (`tokenizer.ggml.token_type`)."""


def gemma_tokenizer(path: Path) -> Any:
    """The byte-pair tokenizer of a Gemma GGUF file, as a transformers tokenizer that puts `<bos>` first."""
    tokenizers = require("tokenizers", "cpu")
    transformers = require("transformers", "cpu")
    pieces, scores, types = _vocabulary(path)
    vocabulary: dict[str, int] = {}
    for number, piece in enumerate(pieces):
        vocabulary.setdefault(piece, number)
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab=vocabulary, merges=_merges(pieces, scores, types, vocabulary), fuse_unk=True, unk_token="<unk>", byte_fallback=True
        )
    )
    backend.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "merged_with_previous")
    steps = [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    backend.decoder = tokenizers.decoders.Sequence(steps)
    control = [piece for piece, kind in zip(pieces, types, strict=True) if kind == _CONTROL]
    backend.add_special_tokens([tokenizers.AddedToken(piece, special=True, normalized=False) for piece in control])
    bos = [("<bos>", vocabulary["<bos>"])]
    backend.post_processor = tokenizers.processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A $B", special_tokens=bos)
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def _vocabulary(path: Path) -> tuple[list[str], list[float], list[int]]:
    fields = require("gguf", "cpu").GGUFReader(str(path)).fields
    pieces, scores, types = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "scores", "token_type"))
    # Runs of spaces are stored as spaces, while text reaches the model with ▁ in their place.
    return ["▁" * len(piece) if piece and not piece.strip(" ") else piece for piece in pieces], scores, types


def _merges(pieces: list[str], scores: list[float], types: list[int], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, in the order of the pieces' ranks; runs of white space come first."""
    ranked: list[tuple[float, int, int, str, str]] = []
    for piece, score, kind in zip(pieces, scores, types, strict=True):
        is_run = len(piece) > 1 and set(piece) in ({"\n"}, {"\t"}, {"▁"})
        if len(piece) < 2 or not (kind == _NORMAL or is_run):
            continue
        rank = len(piece) - 1e6 if is_run else -score
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                ranked.append((rank, vocabulary[left], vocabulary[right], left, right))
    ranked.sort(key=lambda merge: merge[:3])
    return [(left, right) for *_, left, right in ranked]
