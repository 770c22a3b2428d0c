"""WizardLM's test set: 218 instructions of 29 skills and all degrees of difficulty.

Xu et al., "WizardLM: Empowering Large Language Models to Follow Complex Instructions" (arXiv 2304.12244); asked as X-Instruction does, like
`vicuna`.

Read is the release's file, `WizardLM_testset.jsonl`, with the columns `idx` and `Instruction`.
"""

from collections.abc import Sequence

from xl.evaluate.benchmarks.open_ended import MEASURES, load_requests, prompt_file, score
from xl.evaluate.benchmarks.task import Benchmark, Loaded, Source
from xl.evaluate.benchmarks.vicuna import MAX_TOKENS, TEMPERATURE, TOP_P


def load(source: Source, languages: Sequence[str]) -> Loaded:
    """The instructions in these languages. Raises UserError."""
    return load_requests(prompt_file(source).model_copy(update={"instruction": "Instruction", "id": "idx"}), source, languages)


WIZARDLM = Benchmark(
    name="wizardlm",
    paper="arXiv 2304.12244",
    measures=MEASURES,
    load=load,
    score=score,
    max_tokens=MAX_TOKENS,
    is_open=True,
    temperature=TEMPERATURE,
    top_p=TOP_P,
    judge_kind="scores",
)
