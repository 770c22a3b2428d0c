"""The benchmarks there are."""

from xl.evaluate.benchmarks.alpaca_eval import ALPACA_EVAL
from xl.evaluate.benchmarks.bbh import BBH
from xl.evaluate.benchmarks.language_confusion import LANGUAGE_CONFUSION
from xl.evaluate.benchmarks.m_alpacaeval import M_ALPACAEVAL
from xl.evaluate.benchmarks.mlqa import MLQA
from xl.evaluate.benchmarks.mmlu import MMLU
from xl.evaluate.benchmarks.task import Benchmark
from xl.evaluate.benchmarks.vicuna import VICUNA
from xl.evaluate.benchmarks.wizardlm import WIZARDLM
from xl.evaluate.benchmarks.xcopa import XCOPA
from xl.evaluate.benchmarks.xl_alpacaeval import XL_ALPACAEVAL
from xl.evaluate.benchmarks.xquad import XQUAD
from xl.evaluate.benchmarks.xstorycloze import XSTORYCLOZE

_WITH_RIGHT_ANSWERS = BBH, MLQA, MMLU, XCOPA, XQUAD, XSTORYCLOZE
_OPEN_ENDED = ALPACA_EVAL, LANGUAGE_CONFUSION, M_ALPACAEVAL, VICUNA, WIZARDLM, XL_ALPACAEVAL

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (*_WITH_RIGHT_ANSWERS, *_OPEN_ENDED)}
"""By name."""
