"""Whole trainings of a tiny Gemma 3 (sliding windows, tied embeddings), in processes of their own and without Ray."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training import Bench, training
from xl.engines.models import resolve
from xl.storage import cache_folder, place
from xl.train.weights import load_weights

STAGES = (0, 1, 2, 3)

KILL = random.Random()


def test_zero_stages_and_workers_give_one_curve(bench: Bench) -> None:
    expected = bench.losses("one-0")
    assert len(expected) == 10 and expected[-1] < 0.8 * expected[0]
    for out in (f"{workers}-{zero}" for workers in ("one", "two") for zero in STAGES):
        assert bench.losses(out) == pytest.approx(expected, rel=1e-5), out


def test_packing_chunks_and_recomputation_give_the_same_curve_and_bf16_nearly_so(bench: Bench) -> None:
    ways = {
        "unpacked": {"packing": False, "micro_batch": 3},
        "chunked": {"logits_chunk": 7, "gradient_checkpointing": True, "micro_batch": 2},
        "chunked-3": {"logits_chunk": 7, "gradient_checkpointing": True, "zero": 3, "offload": True},
    }
    half = {f"bf16-{zero}": {"precision": "bf16", "zero": zero} for zero in (2, 3)}
    bench.fork(*(training(out, **way) for out, way in {**ways, **half}.items()))
    for out in ways:
        assert bench.losses(out) == pytest.approx(bench.losses("one-0"), rel=1e-5), out
    for out in ("bf16-1", *half):
        assert bench.losses(out) == pytest.approx(bench.losses("one-0"), rel=2e-2), out


@pytest.mark.parametrize(
    ("undisturbed", "workers", "settings"),
    [("one-0", 1, {"zero": 0}), ("two-3", 2, {"zero": 3}), ("bf16-1", 1, {"precision": "bf16"})],
)
def test_kill_9_at_a_random_step_changes_no_loss(bench: Bench, undisturbed: str, workers: int, settings: dict[str, Any]) -> None:
    out, rank, step = f"killed-{undisturbed}", KILL.randrange(workers), KILL.randint(1, 10)
    bench.fork(training(out, kill=(rank, step), **settings), workers=workers, killed=True)
    bench.fork(training(out, **settings), workers=workers)
    assert bench.losses(out) == pytest.approx(bench.losses(undisturbed), rel=1e-6), f"worker {rank} was killed at step {step}"


def test_workers_wait_for_a_main_one_that_exports_for_longer_than_they_wait_for_each_other(bench: Bench) -> None:
    assert (bench.root / "slow" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("stages", [(3, 3, 3), (2, 1, 2)])
def test_two_workers_then_one_then_two_go_on_from_the_universal_format(bench: Bench, stages: tuple[int, int, int]) -> None:
    out = f"moved (stages {stages})"
    bench.fork(training(out, zero=stages[0], keep=9, kill=(1, 5)), workers=2, killed=True)
    bench.fork(training(out, zero=stages[1], keep=9, kill=(0, 8)), killed=True)
    bench.fork(training(out, zero=stages[2], keep=9), workers=2)
    converted = [path.parent.name for path in sorted((bench.root / out / "checkpoints").glob("*/universal"))]
    assert converted == ["step-00000003", "step-00000006"]
    assert bench.losses(out) == pytest.approx(bench.losses("one-0"), rel=1e-3)


def test_a_training_in_an_object_store_goes_on_after_kills_with_other_workers(
    bench: Bench, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XL_CACHE", str(tmp_path / "cache"))
    out = f"{bucket}/training"
    bench.fork(training(out, zero=2, kill=(1, 5)), workers=2, killed=True)
    bench.fork(training(out, zero=1, tune="full", kill=(0, 8)), killed=True)
    bench.fork(training(out, zero=2), workers=2)
    assert bench.losses(out) == pytest.approx(bench.losses("one-0"), rel=1e-3)
    found = resolve(f"{out}/model")
    assert found.path == f"{out}/model" and found.digest != resolve(str(bench.root / "base")).digest
    assert (
        load_weights(found.path, torch.float32).num_parameters() == load_weights(str(bench.root / "base"), torch.float32).num_parameters()
    )
    copies = [path for path in (cache_folder() / "copies").iterdir() if path.is_dir() and (path / "progress.json").exists()]
    assert not copies, "checkpoints stay on no machine"
    kept = sorted(path.name for path in (place(out) / "checkpoints").glob("step-*"))
    assert kept == ["step-00000009", "step-00000010"]
