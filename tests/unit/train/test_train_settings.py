"""Settings that cannot work are refused before anything starts, and the learning rate follows its schedule."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from tests.tiny_model import tiny_dataset
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.folder import plain
from xl.recipe import checked
from xl.settings import semantic
from xl.store import write_json
from xl.train.loop import learning_rate
from xl.train.precision import with_precision
from xl.train.roles import train_anew_if_changed
from xl.train.settings import Train
from xl.train.tokens import dataset_digest


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "bf16", "zero": 0}, "bf16 needs zero: 1 or more"),
        ({"precision": "fp32", "zero": 0, "offload": True}, "offload: true needs zero"),
        ({"learning_rte": 1}, "unknown key `learning_rte`; did you mean `learning_rate`?"),
        ({"lora": {"rnk": 8}}, "unknown key `lora.rnk`; did you mean `rank`?"),
    ],
)
def test_a_mistake_is_told_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        checked(Train, settings, "--set")
    assert "\n" not in str(raised.value)


def test_how_the_work_is_shared_out_does_not_count_as_a_change() -> None:
    moved = Train(workers=8, zero=3, packing=False, micro_batch=4, offload=True, logits_chunk=7, keep=9, gradient_checkpointing=True)
    assert semantic(moved) == semantic(Train())
    assert semantic(Train(seed=1)) != semantic(Train())


@pytest.mark.parametrize(
    ("computes_bf16", "settings", "begun", "precision"),
    [
        (True, {}, None, "bf16"),
        (True, {"zero": 0}, None, "fp32"),
        (False, {}, None, "fp32"),
        (False, {"gpus_per_worker": 1}, None, "bf16"),
        (False, {"precision": "bf16"}, None, "bf16"),
        (False, {}, "bf16", "bf16"),
        (True, {}, "fp32", "fp32"),
    ],
)
def test_a_training_keeps_the_precision_that_suited_the_machine_it_began_on(
    monkeypatch: pytest.MonkeyPatch, computes_bf16: bool, settings: dict[str, Any], begun: str | None, precision: str
) -> None:
    monkeypatch.setattr("xl.train.precision.cpu_computes_bf16", lambda: computes_bf16)
    told = {"train": semantic(Train(precision=begun))} if begun else None
    assert with_precision(Train(**settings), told).precision == precision


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_learning_rate_rises_and_then_follows_its_schedule(schedule: Any, rates: list[float]) -> None:
    settings = Train(learning_rate=1, schedule=schedule, warmup_ratio=1 / 3)
    assert [learning_rate(step, 6, settings) for step in range(6)] == pytest.approx(rates, rel=1e-5)


@pytest.mark.parametrize(("settings", "starts_over"), [(Train(), False), (Train(seed=1), True)])
def test_a_begun_training_goes_on_although_the_machine_would_now_choose_another_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Train, starts_over: bool
) -> None:
    dataset, base = tiny_dataset(tmp_path / "pairs.jsonl"), ResolvedModel("base", str(tmp_path), "digest", None, None)
    begun = {"model": base.digest, "dataset": dataset_digest(dataset), "train": semantic(Train(precision="fp32"))}
    write_json(tmp_path / "train.json", plain(begun))
    monkeypatch.setattr("xl.train.precision.cpu_computes_bf16", lambda: True)
    train = Mock()
    monkeypatch.setattr("xl.train.roles.train", train)
    train_anew_if_changed(dataset, base, tmp_path, settings, Mock(), Console(quiet=True))
    assert (train.call_args.args[3].precision, train.call_args.kwargs["fresh"]) == ("fp32", starts_over)
