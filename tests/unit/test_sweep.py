"""A learning rate is chosen by the language of the answers first, and by the loss among those that it cannot tell apart."""

from pathlib import Path

import pytest

from xl.compare import Question
from xl.engines.models import ResolvedModel
from xl.errors import UserError
from xl.evaluate.settings import Evaluate
from xl.recipe import Model
from xl.sweep import Sweep, Trial, claimed, num_at_once, select
from xl.train.held_out import HeldOutLosses
from xl.train.settings import Train

NUM_PROMPTS = 30


def trial(rate: float, num_right: int, loss: float) -> Trial:
    """A trial that answers so many of 30 prompts in the wanted language, in each of two languages."""
    scores = {Question(f"p{n}", lang): float(n < num_right) for n in range(NUM_PROMPTS) for lang in ("de", "tr")}
    return Trial(rate, HeldOutLosses([10 * loss, 20 * loss, 30 * loss * 1.1], [10, 20, 30]), scores)


def test_a_lower_loss_does_not_make_up_for_answers_in_the_wrong_language() -> None:
    found = select([trial(1e-5, 5, 1.0), trial(1e-4, 27, 2.0), trial(1e-3, 26, 1.5)], seed=7)
    assert found.chosen == 1e-3
    assert [ranked.is_candidate for ranked in found.trials] == [False, True, True]
    assert found.num_answers == 2 * NUM_PROMPTS
    assert found.trials[0].accuracy.value == pytest.approx(5 / NUM_PROMPTS) and found.trials[0].difference.high < 0


def test_the_loss_is_the_mean_over_tokens_with_an_interval_over_pairs() -> None:
    loss = select([trial(1e-5, 5, 1.0), trial(1e-4, 5, 2.0)], seed=7).trials[0].loss
    assert loss is not None
    assert loss.value == pytest.approx((10 + 20 + 33) / 60) and loss.low < loss.value < loss.high


def test_a_training_that_diverged_is_never_chosen() -> None:
    diverged = trial(1e-1, 30, float("nan"))
    assert select([trial(1e-5, 5, 1.0), diverged], seed=7).chosen == 1e-5
    with pytest.raises(UserError, match="at every learning rate the training diverged"):
        select([diverged, diverged], seed=7)


def sweep(out: Path, **train: int) -> Sweep:
    (out.parent / "prompts.jsonl").write_text('{"instruction": "Name a river."}\n', "utf-8")
    (out.parent / "pairs.jsonl").write_text("{}\n", "utf-8")
    asked = Evaluate.model_validate({"prompts": {"from": str(out.parent / "prompts.jsonl")}, "arms": ["tuned"]})
    base = Model(model="m", cpus=3), ResolvedModel("m", "", "digest", None, True)
    return Sweep(out.parent / "pairs.jsonl", base, Train.model_validate(train), asked, ("de",), 7, 0.1, out)


def test_as_many_trials_run_at_once_as_their_trainings_and_engines_have_room(tmp_path: Path) -> None:
    on_cpu, on_gpu = sweep(tmp_path / "s", workers=2, cpus_per_worker=4), sweep(tmp_path / "s", workers=4, gpus_per_worker=1)
    assert [num_at_once(on_cpu, {"CPU": cpus}) for cpus in (2, 9, 17, 18)] == [1, 1, 1, 2]
    assert num_at_once(on_gpu, {"CPU": 64, "GPU": 8}) == 2


def test_a_sweep_takes_further_rates_but_no_other_settings(tmp_path: Path) -> None:
    for rate in (1, 2):
        with claimed(sweep(tmp_path / "s", learning_rate=rate, save_every=rate), fresh=False):
            (tmp_path / "s" / "lr-1").mkdir(exist_ok=True)
    with pytest.raises(UserError, match=r"train\.epochs: 1 → 2"), claimed(sweep(tmp_path / "s", epochs=2), fresh=False):
        pass
    with claimed(sweep(tmp_path / "s", epochs=2), fresh=True):
        assert not (tmp_path / "s" / "lr-1").exists()
    with pytest.raises(UserError, match="holds other files and no sweep"), claimed(sweep(tmp_path), fresh=True):
        pass
