"""Vicuna's questions: 80 in nine categories, the first set that a strong model judged.

Chiang et al., "Vicuna: An Open-Source Chatbot" (2023, lmsys.org/blog/2023-03-30-vicuna); asked as X-Instruction does (Li et al., arXiv
2405.19744): the English question with a request for the language, at temperature 0.7 and top-p 0.9, with up to 2,048 tokens. X-Instruction
also forbids to say six tokens twice, which our engines cannot; `not_repetitive` shows what that costs.

Read is the release's file, `question.jsonl`, with the columns `question_id` and `text`.
"""

from collections.abc import Sequence

from xl.evaluate.benchmarks.open_ended import MEASURES, load_requests, prompt_file, score
from xl.evaluate.benchmarks.task import Benchmark, Loaded, Source


def load(source: Source, languages: Sequence[str]) -> Loaded:
    """The questions in these languages. Raises UserError."""
    return load_requests(prompt_file(source, instruction="text", id="question_id"), source, languages)


VICUNA = Benchmark(
    name="vicuna",
    paper="arXiv 2405.19744",
    measures=MEASURES,
    load=load,
    score=score,
    max_tokens=2048,
    is_open=True,
    temperature=0.7,
    top_p=0.9,
    judge_kind="scores",
)
