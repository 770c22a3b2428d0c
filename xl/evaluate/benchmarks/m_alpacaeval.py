"""m-AlpacaEval: AlpacaEval's instructions translated by machine, to be answered in the language that they are in.

Iyer, Rei, Chen and Birch, "XL-Suite", Findings of EMNLP 2025 (arXiv 2503.22973), for whether what was learned across languages carries over
to requests in the language itself. How its models' answers were drawn is not published: ours are the likeliest, with up to 2,048 tokens.

Read is a folder with a table for each language (`de.json`, `german.jsonl`, …) with the column `instruction`, or the hub
(viyer98/m-AlpacaEval), where each language is a split. A prompt is named by its place, which is the same in all languages.
"""

from collections.abc import Sequence
from dataclasses import replace

from xl.evaluate.benchmarks.alpaca_eval import ALPACA_EVAL
from xl.evaluate.benchmarks.open_ended import language_parts, translated_items
from xl.evaluate.benchmarks.task import Loaded, Source


def load(source: Source, languages: Sequence[str]) -> Loaded:
    """The prompts in these languages. Raises UserError."""
    return translated_items(language_parts(source), source, languages)


M_ALPACAEVAL = replace(ALPACA_EVAL, name="m_alpacaeval", paper="arXiv 2503.22973", load=load)
