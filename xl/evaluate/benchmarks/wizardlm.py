"""WizardLM's test set: 218 instructions of 29 skills and all degrees of difficulty.

Xu et al., "WizardLM: Empowering Large Language Models to Follow Complex Instructions" (arXiv 2304.12244); asked as X-Instruction does, like
`vicuna`.

Read is the release's file, `WizardLM_testset.jsonl`, with the columns `idx` and `Instruction`.
"""

from collections.abc import Sequence
from dataclasses import replace

from xl.evaluate.benchmarks.open_ended import load_requests, prompt_file
from xl.evaluate.benchmarks.task import Loaded, Source
from xl.evaluate.benchmarks.vicuna import VICUNA


def load(source: Source, languages: Sequence[str]) -> Loaded:
    """The instructions in these languages. Raises UserError."""
    return load_requests(prompt_file(source, instruction="Instruction", id="idx"), source, languages)


WIZARDLM = replace(VICUNA, name="wizardlm", paper="arXiv 2304.12244", load=load)
