"""What an X-Instruction run's models make of seeds that they have not seen, and how its rounds of rating end."""

import json
from pathlib import Path

import pytest

from tests.support import ROOT, Cli, assert_balanced, german_pages, job, ledger, recipe, rows, succeeded, traced
from tests.tiny_model import tiny_model
from xl.methods.rounds import SETTLED
from xl.pairs.rating_set import rating_set
from xl.pairs.seeds import Seeds, read_seeds

pytestmark = pytest.mark.ray

SEEDS = {"from": [str(ROOT / "jobs/samples/seeds/de.jsonl")], "num_held_out": 10}


def test_every_held_out_seed_is_asked_about_once_and_the_same_command_prints_the_same(tmp_path: Path, joined: Cli) -> None:
    """The run trains an evaluator, and another one on what the first is sure of; a scripted engine then rates as before, which ends it.

    The base model is no chat model, and what is made of it takes chat messages, as it was trained on.
    """
    model = {"model": str(tiny_model(tmp_path / "tiny")), "engine": "scripted", "chat": False}
    changes = {
        "models": {"writer": model},
        "seeds": SEEDS,
        "evaluator": {"max_steps": 1, "global_batch": 2, "max_length": 640, "precision": "fp32"},
        "rating": {"rater": "trained", "max_page_chars": 100, "rounds": {"num_rounds": 3}},
    }
    path, run = recipe(tmp_path / "recipe.yaml", german_pages(tmp_path / "in", 20), **changes), tmp_path / "run"
    succeeded(joined("run", path, "--out", run, env={"XL_SCRIPTED_TRACE": str(tmp_path / "trace")}))
    pairs = rating_set(read_seeds(Seeds.model_validate(SEEDS), ["de"], 7).held_out, 100, 7)

    assert_balanced(run, ["pairs", "rated", "labelled_2", "rated_2", "labelled_3", "rated_3", "accepted"])
    before, last = ({row["id"]: row["rating"] for row in rows(run, stage)} for stage in ("rated_2", "rated_3"))
    assert last == before
    first, second, third = json.loads((run / "rounds.json").read_text("utf-8"))
    assert first["scores"]["de"]["agreement"]["num_pairs"] == len(pairs)
    assert (second["num_labels"] > 0, second["scores"]["de"]["num_rated"]) == (True, first["scores"]["de"]["num_rated"])
    assert third["not_asked"] == SETTLED
    every = ledger(run)
    asked = every["pairs"]["de"]["in"] + 2 * (every["rated"]["de"]["in"] + len(pairs))
    assert traced(tmp_path / "trace").total() == asked, "a round that teaches nothing new costs no call"

    labelled = tmp_path / "labelled.jsonl"
    labels = [{"lang": "de", "instruction": f"What is {n}?", "text": f"Das ist die Zahl {n}.", "label": n % 2} for n in range(12)]
    labelled.write_text("\n".join(map(json.dumps, labels)), "utf-8")
    printed, again = (joined(run, "--labelled", labelled, main=job("held_out")) for _ in range(2))
    assert "writers on 10 held-out seeds" in succeeded(printed)
    assert "raters on 12 pairs that people labelled" in printed.stdout
    assert ledger(run / "held_out" / "labelled")["rated_margin"]["de"]["kept"] == 12
    assert ledger(run / "held_out" / "reverse")["retrieved"]["de"]["kept"] == 10
    assert ledger(run / "held_out" / "raters")["rated_margin"]["de"]["kept"] == len(pairs)
    tables = [text[text.index("writers on") :] for text in (printed.stdout, again.stdout)]
    assert tables[0] == tables[1]
