"""Training on one GPU: the same curve as on CPU, whatever way it is computed and however it is interrupted. Skipped where there is none."""

import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.training import SETTINGS, Bench, training

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU = {"gpus_per_worker": 1}
WAYS = {
    **{f"zero-{stage}": {"zero": stage} for stage in range(4)},
    "offload-2": {"zero": 2, "offload": True},
    "offload-3": {"zero": 3, "offload": True},
    "unpacked": {"packing": False, "micro_batch": 3},
    "chunked": {"logits_chunk": 7, "gradient_checkpointing": True, "micro_batch": 2},
}
HALF = {f"bf16-{stage}": {"precision": "bf16", "zero": stage} for stage in (1, 2, 3)}
ADAPTER = {"tune": "lora", "lora": {"rank": 4, "dropout": 0.1}}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench whose `cpu` is ten undisturbed steps on CPU; `adapter` and the names of `WAYS` and `HALF` are those on the GPU."""
    bench = Bench(tmp_path_factory.mktemp("gpu"))
    bench.run(training("cpu"))
    bench.run(*(training(out, **GPU, **way) for out, way in {**WAYS, **HALF, "adapter": ADAPTER}.items()))
    return bench


def test_every_way_to_compute_a_step_gives_the_curve_of_the_cpu(bench: Bench) -> None:
    for out in WAYS:
        assert bench.losses(out) == pytest.approx(bench.losses("cpu"), rel=1e-4), out
    for out in HALF:
        assert bench.losses(out) == pytest.approx(bench.losses("cpu"), rel=2e-2), out
    assert bench.losses("adapter")[-1] < bench.losses("adapter")[0]


@pytest.mark.parametrize("out", ["zero-1", "zero-3", "adapter"])
def test_kill_9_changes_no_loss(bench: Bench, out: str) -> None:
    settings = {**GPU, **(WAYS.get(out) or ADAPTER)}
    bench.run(training(f"killed-{out}", kill=(0, 5), **settings), killed=True)
    bench.run(training(f"killed-{out}", **settings))
    assert bench.losses(f"killed-{out}") == pytest.approx(bench.losses(out), rel=1e-6)


def test_the_exported_model_is_the_one_that_the_cpu_trains(bench: Bench) -> None:
    from transformers import AutoModelForCausalLM

    from xl.train.tokens import open_documents

    document = open_documents(bench.root / "zero-1" / "tokens")[0]
    ids = torch.tensor(document.ids.tolist())[None]
    logits = [
        AutoModelForCausalLM.from_pretrained(bench.root / out / "model", dtype=torch.float32).eval()(ids).logits
        for out in ("zero-1", "cpu")
    ]
    assert torch.allclose(*logits, atol=0.05)


def test_ray_train_gives_the_worker_its_gpu(bench: Bench) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, "jobs/train.py", str(bench.root / "pairs.jsonl"), "--model", str(bench.root / "base")]
    command += ["--out", str(bench.root / "ray"), *(f"--set={key}={value}" for key, value in {**SETTINGS, **GPU}.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert bench.losses("ray") == pytest.approx(bench.losses("zero-1"), rel=1e-6)
