"""How good the rater is, measured on pairs that were labelled blind: does the page answer the instruction?

`tests/labels/x_instruction.jsonl` holds rated pairs of a run over real pages in 14 languages (Gemma 3 270M writes and rates), as many kept
as dropped, drawn at random; `x_instruction_samples.jsonl` those of the demo over our sample pages in eight. Two readers labelled each
without seeing what the rater said; where they differed a third decided.
"""

import json

import numpy as np

from tests.labelled_pairs import LABELS
from xl.evaluate.intervals import auc_interval, proportion_interval


def test_pairs_that_survive_rating_are_better_than_those_that_do_not() -> None:
    pairs = [json.loads(line) for path in LABELS for line in path.read_text("utf-8").splitlines()]
    labels = np.array([pair["label"] for pair in pairs])
    kept = np.array([pair["kept"] for pair in pairs])
    auc, interval = auc_interval([pair["margin"] for pair in pairs], labels == 1, range(len(pairs)), seed=7)
    print(f"\n{len(pairs)} pairs: AUC of the margin {auc:.2f} [{interval.low:.2f}, {interval.high:.2f}]")
    precisions = []
    for name, chosen in (("kept", kept), ("dropped", ~kept)):
        right, total = int(labels[chosen].sum()), int(chosen.sum())
        bounds = proportion_interval(right, total)
        precisions.append(right / total)
        print(f"{name}: {right} of {total} answer their instruction: {right / total:.2f} [{bounds.low:.2f}, {bounds.high:.2f}]")
    assert len(pairs) >= 100
    assert interval.low > 0.5, "the rater is no better than chance"
    assert precisions[0] > precisions[1]
