"""XL-AlpacaEval: AlpacaEval's English instructions, to be answered in another language.

Iyer, Rei, Chen and Birch, "XL-Suite", Findings of EMNLP 2025 (arXiv 2503.22973). How its models' answers were drawn is not published: ours
are the likeliest, with up to 2,048 tokens.

Read is AlpacaEval's own file, `alpaca_eval.json`, for any language: instructions that only make sense in English are left out by a list of
ours (`xl_alpacaeval/exclusions.tsv`), stricter than the paper's, and the language is asked for in varied words and places. The paper's own
choice of 797 is on the hub (viyer98/XL-AlpacaEval), a split for each language, or in a folder with a table for each: those are asked as
they are written, and other languages with its English instructions and a request of ours.
"""

from collections.abc import Sequence
from dataclasses import replace

from xl.evaluate.benchmarks.alpaca_eval import ALPACA_EVAL
from xl.evaluate.benchmarks.open_ended import (
    language_parts,
    load_requests,
    prompt_file,
    together,
    translated_items,
)
from xl.evaluate.benchmarks.task import Loaded, Source
from xl.evaluate.tables import is_table


def load(source: Source, languages: Sequence[str]) -> Loaded:
    """The prompts in these languages. Raises UserError."""
    if is_table(source.path):
        prompts = prompt_file(source, kind="xl_alpacaeval", clauses="varied")
        return load_requests(prompts, source, languages)
    parts = language_parts(source)
    others = [lang for lang in languages if lang not in parts] if "en" in parts else []
    written = translated_items(parts, source, [lang for lang in languages if lang not in others])
    if not others:
        return written
    asked = load_requests(parts["en"].model_copy(update={"clauses": "varied"}), source, others, group="")
    note = f"{', '.join(others)}: no part of the set, but its English instructions with a request of ours"
    return together([written, asked, Loaded([], (note,))])


XL_ALPACAEVAL = replace(ALPACA_EVAL, name="xl_alpacaeval", paper="arXiv 2503.22973", load=load)
