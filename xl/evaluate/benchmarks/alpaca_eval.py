"""AlpacaEval: 805 English instructions, to be answered in English. `m_alpacaeval` are its translations.

Dubois et al., "Length-Controlled AlpacaEval" (arXiv 2404.04475); Li et al., github.com/tatsu-lab/alpaca_eval. For whether tuning on other
languages costs a model its English. Each model of the published leaderboard draws its answers in its own way: ours are the likeliest, with
up to 2,048 tokens.

Read is the project's own file, `alpaca_eval.json`, with the column `instruction`.
"""

from collections.abc import Sequence

from xl.errors import UserError
from xl.evaluate.benchmarks.open_ended import MEASURES, load_requests, prompt_file, score
from xl.evaluate.benchmarks.task import Benchmark, Loaded, Source


def load(source: Source, languages: Sequence[str]) -> Loaded:
    """The instructions. Raises UserError, also for another language than English."""
    if other := [lang for lang in languages if lang != "en"]:
        raise UserError(
            f"alpaca_eval is in English: give it `languages: [en]`, and ask for {', '.join(other)} with xl_alpacaeval or m_alpacaeval"
        )
    return load_requests(prompt_file(source), source, languages, as_written=True)


ALPACA_EVAL = Benchmark(
    name="alpaca_eval",
    paper="arXiv 2404.04475",
    measures=MEASURES,
    load=load,
    score=score,
    max_tokens=2048,
    is_open=True,
)
