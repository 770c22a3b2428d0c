"""A learning-rate sweep: which rate leaves a model that answers in the language it is asked for, and has learned most.

The loss alone is a bad guide: rates at which it looks best can leave a model that answers in the wrong language (Chirkova and Nikoulina,
arXiv 2402.14778). So each trial trains on a part of the dataset, answers the recipe's prompts, and is measured on the pairs held out.

    OUT/settings.json       what the sweep was begun with
    OUT/split/              the dataset's two parts
    OUT/lr-RATE/            a trial: training/, evaluation/, and trial.json once it is finished
    OUT/sweep.json          what came of it

Ray Tune runs the trials, as many at once as the cluster has room for. A trial that is finished stays so; one that was stopped goes on.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from xl import placement
from xl.compare import Scores, asked
from xl.errors import UserError, require
from xl.evaluate.intervals import Estimate, Interval, difference_interval, equal_weights, estimate_mean
from xl.evaluate.language import Verdict
from xl.evaluate.prompts import QUESTION_SEED, load_prompts
from xl.evaluate.rows import finished_rows
from xl.evaluate.settings import Evaluate
from xl.folder import RunFolder, contents, differences, locked, plain
from xl.pipeline import Engines, Role, tuned_role
from xl.progress import waiting
from xl.settings import semantic
from xl.store import read_json, write_json
from xl.train.held_out import HELD_OUT, TRAIN, HeldOutLosses, held_out_losses, loss_estimate, split_dataset
from xl.train.metrics import METRICS, read_metrics
from xl.train.settings import Train
from xl.train.tokens import dataset_digest
from xl.train.trainer import clear, train

RULE = (
    "Of the rates whose language accuracy cannot be told from the best one's (95 % interval of the paired difference), "
    "the one with the lowest loss on held-out pairs."
)


@dataclass(frozen=True)
class Sweep:
    """What the trials have in common."""

    dataset: Path
    base: Role
    train: Train
    """Its learning rate is the trials' to say."""
    evaluate: Evaluate
    languages: tuple[str, ...]
    seed: int
    held_out_ratio: float
    out: Path

    @property
    def split(self) -> Path:
        """Where the dataset's two parts are."""
        return self.out / "split"

    def trial(self, learning_rate: float) -> Path:
        """The folder of a trial."""
        return self.out / f"lr-{learning_rate}"

    def marker(self, learning_rate: float) -> Path:
        """The file that a trial writes last."""
        return self.trial(learning_rate) / "trial.json"


@dataclass(frozen=True)
class Trial:
    """A finished training at one learning rate."""

    learning_rate: float
    losses: HeldOutLosses
    scores: Scores
    """1 for an answer in the wanted language, 0 for any other."""


@dataclass(frozen=True)
class Ranked:
    """A trial beside the others."""

    learning_rate: float
    accuracy: Estimate
    """Share of answers in the wanted language, every language with the same weight."""
    difference: Interval
    """95 % interval of its language accuracy less that of the best trial, on the same prompts."""
    loss: Estimate | None
    """Nats per token of the held-out pairs; None for a training that diverged."""
    is_candidate: bool
    """Whether it may be chosen."""


@dataclass(frozen=True)
class Selection:
    """What came of a sweep."""

    trials: list[Ranked]
    """By learning rate."""
    chosen: float
    num_answers: int
    """Answers of each trial that its language accuracy is a share of."""


def select(trials: Sequence[Trial], seed: int) -> Selection:
    """Choose a learning rate by `RULE`; `seed` draws the intervals.

    Raises:
        UserError: all trainings diverged.
    """
    questions = sorted(set.intersection(*(set(trial.scores) for trial in trials)))
    keys, weights = [question.key for question in questions], equal_weights([question.lang for question in questions])
    scores = {trial.learning_rate: [trial.scores[question] for question in questions] for trial in trials}
    accuracy = {rate: estimate_mean(every, keys, seed, weights) for rate, every in scores.items()}
    losses = {trial.learning_rate: loss_estimate(trial.losses, seed) for trial in trials}
    sound = {rate: loss for rate, loss in losses.items() if loss}
    if not sound:
        raise UserError("at every learning rate the training diverged: the loss on held-out pairs is no number. Try lower rates")
    best = max(sound, key=lambda rate: (accuracy[rate].value, -sound[rate].value))
    difference = {rate: difference_interval(scores[best], every, keys, seed, weights=weights) for rate, every in scores.items()}
    candidates = [rate for rate in sound if difference[rate].high >= 0]
    chosen = min(candidates, key=lambda rate: (sound[rate].value, rate))
    ranked = [Ranked(rate, accuracy[rate], difference[rate], losses[rate], rate in candidates) for rate in sorted(scores)]
    return Selection(ranked, chosen, len(questions))


@contextmanager
def claimed(sweep: Sweep, fresh: bool) -> Iterator[None]:
    """Hold the sweep's folder, new or begun; `fresh` clears it first. Rates may be added to a sweep, all else must be as it was.

    Raises:
        UserError: the folder holds something else, or a sweep with other settings; or the prompts cannot be read.
    """
    load_prompts(sweep.evaluate.prompts, sweep.languages, QUESTION_SEED)  # a mistake there is better found before hours of training
    sweep.out.mkdir(parents=True, exist_ok=True)
    with locked(RunFolder(sweep.out)):
        begun = sweep.out / "settings.json"
        before, now = read_json(begun), _settings(sweep)
        if before is None and contents(sweep.out):
            raise UserError(f"--out {sweep.out} holds other files and no sweep; choose an empty or a new folder")
        if fresh:
            clear(sweep.out)
        elif before not in (None, now):
            changed = "; ".join(differences("", before, now))
            raise UserError(f"--out {sweep.out} was begun with other settings: {changed}. Use --fresh to start over, or another folder")
        write_json(begun, now)
        yield


def _settings(sweep: Sweep) -> Any:
    trained = {key: value for key, value in semantic(sweep.train).items() if key != "learning_rate"}
    model, resolved = sweep.base
    return plain(
        {
            "dataset": dataset_digest(sweep.dataset),
            "base": {**semantic(model), "digest": resolved.digest},
            "train": trained,
            "evaluate": semantic(sweep.evaluate),
            "languages": sweep.languages,
            "seed": sweep.seed,
            "held_out_ratio": sweep.held_out_ratio,
        }
    )


def run_sweep(sweep: Sweep, learning_rates: Sequence[float], console: Console) -> Selection:
    """Run the trials that are not finished, choose, and write `sweep.json`. Ray must be initialised, and the folder held (`claimed`).

    Raises:
        UserError: the dataset, the settings or a model are for the user to mend, or all trainings diverged.
    """
    split_dataset(sweep.dataset, sweep.train, sweep.held_out_ratio, sweep.train.seed, sweep.split)
    todo = [rate for rate in learning_rates if not sweep.marker(rate).exists()]
    console.print(f"{len(learning_rates)} learning rates, {len(learning_rates) - len(todo)} of them done before", highlight=False)
    if todo:
        with waiting(console, lambda: ", ".join(_told(sweep, rate) for rate in learning_rates)):
            _tune(sweep, todo)
    found = select([_read_trial(sweep, rate) for rate in learning_rates], sweep.seed)
    write_json(sweep.out / "sweep.json", {"rule": RULE, "held_out_ratio": sweep.held_out_ratio, **asdict(found)})
    return found


def _told(sweep: Sweep, learning_rate: float) -> str:
    """How far a trial is."""
    if sweep.marker(learning_rate).exists():
        return f"{learning_rate:g} is done"
    training = sweep.trial(learning_rate) / "training"
    if (training / "model").exists():
        return f"{learning_rate:g} is measured"
    steps = read_metrics(training / METRICS)
    return f"{learning_rate:g} is at step {steps[-1].step}" if steps else f"{learning_rate:g} begins"


def needs(sweep: Sweep) -> dict[str, float]:
    """What a trial holds at most: its training and its engine take turns, and Tune reckons a CPU for the trial itself."""
    settings, (model, _) = sweep.train, sweep.base
    return {
        "CPU": 1 + max(settings.workers * settings.cpus_per_worker, model.cpus * model.replicas[0]),
        "GPU": max(settings.workers * settings.gpus_per_worker, model.gpus * model.replicas[0]),
    }


def num_at_once(sweep: Sweep, resources: Mapping[str, float]) -> int:
    """Trials that a cluster has room for, but at least one: an autoscaler may make room for it yet."""
    rooms = [resources.get(name, 0.0) // amount for name, amount in needs(sweep).items() if amount]
    return max(1, int(min(rooms)))


def _tune(sweep: Sweep, learning_rates: Sequence[float]) -> None:
    tune = require("ray.tune", "cpu")
    import ray
    from ray.tune.progress_reporter import TrialProgressCallback

    from xl.execute import cause_of

    class Announcement(TrialProgressCallback):  # type: ignore[misc]
        """In the place of Tune's own, which tells the last result of a trial; ours give none."""

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            print(f"learning rate {trial.config['learning_rate']:g} is done")  # Tune pickles this object, and no console can be

    logs = sweep.out / ".ray"
    shutil.rmtree(logs, ignore_errors=True)  # which trials are finished is for their folders to say
    tuner = tune.Tuner(
        tune.with_parameters(_trial_on_tune, sweep=sweep),
        param_space={"learning_rate": tune.grid_search(list(learning_rates))},
        tune_config=tune.TuneConfig(max_concurrent_trials=num_at_once(sweep, ray.cluster_resources())),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(logs),
            verbose=0,
            callbacks=[Announcement()],
            failure_config=tune.FailureConfig(fail_fast=True),
        ),
    )
    errors = tuner.fit().errors
    if errors:
        raise cause_of(errors[0])


def _trial_on_tune(config: dict[str, float], sweep: Sweep) -> None:
    import ray

    # Whatever a trial starts is held to the CPU that Tune reserved for it. The training and the engine reserve their own.
    where = placement.options(placement.beside_engines())
    work = ray.remote(num_cpus=0)(run_trial).options(scheduling_strategy="DEFAULT", **where)
    ray.get(work.remote(sweep, config["learning_rate"]))


def run_trial(sweep: Sweep, learning_rate: float) -> None:
    """Train at one rate, measure, and mark the trial as finished; what is done of it already is not done again.

    Raises:
        UserError: as `run_sweep`.
    """
    import ray

    folder = sweep.trial(learning_rate)
    # The split has chosen among the rows already.
    settings = sweep.train.model_copy(update={"learning_rate": learning_rate, "languages": None, "shuffled_responses": False})
    model = train(sweep.split / TRAIN, sweep.base[1], folder / "training", settings).model
    where = placement.options(placement.of(settings, settings.gpus_per_worker))
    measure = ray.remote(num_cpus=settings.cpus_per_worker, num_gpus=settings.gpus_per_worker, **where)(held_out_losses)
    losses = ray.get(measure.remote(model, sweep.split / HELD_OUT, folder / "tokens", settings))
    _answer(sweep, folder)
    write_json(sweep.marker(learning_rate), asdict(losses))


def _answer(sweep: Sweep, folder: Path) -> None:
    """Have the trial's model answer the prompts, and name the languages of its answers."""
    from xl.evaluate.run import Evaluation, run_evaluation

    console = Console(quiet=True)
    evaluated = RunFolder(folder / "evaluation")
    evaluated.root.mkdir(parents=True, exist_ok=True)
    evaluation = Evaluation(sweep.evaluate, sweep.languages, sweep.seed, {"tuned": tuned_role(sweep.base[0], folder / "training")})
    with locked(evaluated), Engines(console) as engines:
        run_evaluation(evaluation, evaluated, engines, console)


def _read_trial(sweep: Sweep, learning_rate: float) -> Trial:
    losses = HeldOutLosses(**read_json(sweep.marker(learning_rate)) or {})
    rows = finished_rows(RunFolder(sweep.trial(learning_rate) / "evaluation"), "verdicts")
    scores = {asked(row): float(row["verdict_tuned"] == Verdict.RIGHT) for row in rows}
    return Trial(learning_rate, losses, scores)
