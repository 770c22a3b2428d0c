"""How good the rater is, measured on pairs that were labelled blind: does the page answer the instruction?

`tests/labels/x_instruction.jsonl` holds rated pairs of a run over real pages in 14 languages (Gemma 3 270M writes and rates), as many kept
as dropped, drawn at random. Two readers labelled each without seeing what the rater said; where they differed a third decided.
"""

import json
from pathlib import Path

import numpy as np

from xl.evaluate.intervals import proportion_interval

LABELS = Path(__file__).parent.parent / "labels" / "x_instruction.jsonl"
NUM_DRAWS = 4_000


def auc_interval(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Area under the ROC curve with its 95 % interval: percentile bootstrap over pairs, labels drawn class by class."""
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(7)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    drawn = [np.concatenate([draw.choice(members, len(members)) for members in classes]) for _ in range(NUM_DRAWS)]
    low, high = np.quantile([roc_auc_score(labels[chosen], scores[chosen]) for chosen in drawn], [0.025, 0.975])
    return float(roc_auc_score(labels, scores)), float(low), float(high)


def test_pairs_that_survive_rating_are_better_than_those_that_do_not() -> None:
    pairs = [json.loads(line) for line in LABELS.read_text("utf-8").splitlines()]
    labels = np.array([pair["label"] for pair in pairs])
    kept = np.array([pair["kept"] for pair in pairs])
    auc, low, high = auc_interval(np.array([pair["margin"] for pair in pairs]), labels)
    print(f"\n{len(pairs)} pairs: AUC of the margin {auc:.2f} [{low:.2f}, {high:.2f}]")
    precisions = []
    for name, chosen in (("kept", kept), ("dropped", ~kept)):
        right, total = int(labels[chosen].sum()), int(chosen.sum())
        bounds = proportion_interval(right, total)
        precisions.append(right / total)
        print(f"{name}: {right} of {total} answer their instruction: {right / total:.2f} [{bounds.low:.2f}, {bounds.high:.2f}]")
    assert len(pairs) >= 100
    assert low > 0.5, "the rater is no better than chance"
    assert precisions[0] > precisions[1]
