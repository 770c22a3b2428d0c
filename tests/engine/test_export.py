"""A tuned model answers alike where it was trained and wherever its exported folders are loaded: token for token, in fp32.

First all weights are tuned, then an adapter on top of what that exported: so one vLLM engine shows the full model and the adapter,
and a second one the merged model.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.training import NUM_PROMPTS, greedy, prompts_of, run_trainings, training
from xl.engines.models import prepare, resolve
from xl.train.prompts import request

pytestmark = pytest.mark.engine

MODEL = "packaged/smollm2-135m-instruct"
Answers = list[list[int]]


def sample_pairs() -> list[dict[str, str]]:
    """The German sample pages' first words as short answers, so that a tuned model stops by itself."""
    pages = map(json.loads, (ROOT / "jobs/samples/pages/de.jsonl").read_text("utf-8").splitlines())
    pairs = []
    for number, page in enumerate(itertools.islice(pages, 24)):
        subject, start = page["url"].rpartition("/")[2].replace("-", " "), " ".join(page["text"].split()[:4])
        pair = {"id": str(number), "instruction": f"Explain: {subject}.", "response": start}
        pairs.append({**pair, "lang": "de", "language": "German", "source": "web"})
    return pairs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the trainings `full` and `lora`, each with the answers of the model in the trainer's memory."""
    root = tmp_path_factory.mktemp("export")
    found = resolve(MODEL)
    prepare(found)
    (root / "base").symlink_to(found.path)
    (root / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in sample_pairs()), "utf-8")
    shared: dict[str, Any] = {"answers": True, "max_steps": 2, "max_length": 256, "save_every": 100, "cpus_per_worker": os.cpu_count()}
    full = training("full", learning_rate=2e-4, **shared)
    lora = training("lora", base="full/model", tune="lora", lora={"rank": 8}, learning_rate=2e-3, **shared)
    run_trainings(root, full, lora)
    yield root
    shutil.rmtree(root)  # checkpoints of some GiB, which pytest would keep


def own_answers(trained: Path, out: str) -> Answers:
    """What the model said in the trainer's memory."""
    answers: Answers = json.loads((trained / out / "answers.json").read_text("utf-8"))
    assert len(answers) == NUM_PROMPTS
    return answers


def test_each_training_changed_the_answers(trained: Path) -> None:
    from transformers import AutoModelForCausalLM

    before = greedy(AutoModelForCausalLM.from_pretrained(trained / "base", dtype="float32"), prompts_of(trained / "full" / "tokens"))
    full, lora = own_answers(trained, "full"), own_answers(trained, "lora")
    assert all(old != new for old, new in zip(before, full, strict=True))
    assert sum(old != new for old, new in zip(full, lora, strict=True)) >= NUM_PROMPTS / 2


def test_exported_folders_answer_in_transformers_as_the_trained_model_did(trained: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def answers(out: str, adapter: Path | None = None) -> Answers:
        model = AutoModelForCausalLM.from_pretrained(trained / out / "model", dtype="float32")
        return greedy(PeftModel.from_pretrained(model, adapter) if adapter else model, prompts_of(trained / out / "tokens"))

    assert answers("full") == own_answers(trained, "full")
    assert answers("full", trained / "lora" / "adapter") == own_answers(trained, "lora")
    assert answers("lora") == own_answers(trained, "lora")


def test_exported_folders_answer_in_vllm_as_the_trained_model_did(trained: Path) -> None:
    requests = [request(pair["instruction"], pair["language"]) for pair in sample_pairs()[:NUM_PROMPTS]]
    full = {"model": str(trained / "full" / "model"), "adapter": str(trained / "lora" / "adapter")}
    merged = {"model": str(trained / "lora" / "model"), "adapter": None}
    asked = json.dumps({"loads": [full, merged], "requests": requests})
    arguments = [sys.executable, "-m", "tests.vllm_answers", asked]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).removeprefix("RESULT "))
    assert said[0]["plain"] == own_answers(trained, "full")
    assert said[0]["adapted"] == own_answers(trained, "lora")
    assert said[1]["plain"] == own_answers(trained, "lora")
