"""The whole loop on real engines: pages, pairs, a tuned model, its answers and the report."""

import json
from pathlib import Path

import pytest

from tests.support import ROOT, Cli, here, ledger, recipe, succeeded

pytestmark = pytest.mark.engine

# As a chat model it is too small to write an instruction for a page; after three examples it does.
SMOLLM = {"model": "packaged/smollm2-135m-instruct", "chat": False, "max_model_len": 2048, "max_num_seqs": 32, "cpus": 0}


def write(folder: Path, max_steps: int) -> Path:
    """Ten pages in two languages, two optimizer steps, three prompts in three languages."""
    pages = folder / "pages.jsonl"
    lines = [json.dumps({**json.loads(line), "lang": lang}) for lang in ("de", "sw") for line in sample(lang)[:5]]
    pages.write_text("\n".join(lines), "utf-8")
    prompts = folder / "prompts.jsonl"
    prompts.write_text("\n".join((ROOT / "jobs/samples/prompts.jsonl").read_text("utf-8").splitlines()[:3]), "utf-8")
    return recipe(
        folder / "recipe.yaml",
        {"from": str(pages), "lang": "lang"},
        languages=["de", "sw"],
        models={"writer": SMOLLM, "base": SMOLLM},
        rating={"rater": "prompted", "min_rating": 0},
        train={"tune": "lora", "max_steps": max_steps, "global_batch": 2, "max_length": 64, "cpus_per_worker": 2},
        evaluate={
            **{"prompts": {"from": str(prompts)}, "languages": ["de", "sw", "es"], "arms": ["base", "tuned"], "max_tokens": 16},
            **{"num_others": 2, "fit_tokens": 16},
        },
    )


def sample(lang: str) -> list[str]:
    return (ROOT / "jobs/samples/pages" / f"{lang}.jsonl").read_text("utf-8").splitlines()


def test_from_pages_to_a_verdict(tmp_path: Path, joined: Cli) -> None:
    path, run = write(tmp_path, 2), tmp_path / "run"
    assert "Spanish (not trained)" in succeeded(joined("run", path, "--out", run))
    assert (run / "training" / "model" / "config.json").exists()
    rows = ledger(run / "evaluation")
    for stage in ("prompts", "answers_base", "answers_tuned", "fit", "verdicts"):
        assert {lang: entry["in"] for lang, entry in rows[stage].items()} == {"de": 3, "es": 3, "sw": 3}, stage
    report = (run / "report.html").read_text("utf-8")
    assert "The model" in report
    assert "What changed" in report and "not trained on" in report

    compared = json.loads(succeeded(here("compare", run, "--json")))
    figure = next(figure for figure in compared if figure["measure"] == "in the wanted language" and figure["lang"] is None)
    assert figure["num_questions"] == 9 and set(figure["differences"]) == {"tuned"}

    assert "nothing to do" in succeeded(joined("run", path, "--out", run))
    refused = joined("run", write(tmp_path, 3), "--out", run)
    assert refused.returncode == 2
    assert "train.max_steps: 2 → 3" in refused.stderr
