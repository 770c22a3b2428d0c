"""Run a recipe: pages to a dataset, the dataset to a model, the model to a verdict; and write down what came of it.

What the recipe leaves out (`train:`, `evaluate:`) is not done. Each part is skipped where it is finished.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console
from rich.filesize import decimal

from xl import arms as arms_folder
from xl import dataset, folder, storage, summary
from xl.engines.models import ResolvedModel, prepare
from xl.errors import UserError
from xl.evaluate.rows import take_exam, take_rows
from xl.folder import RunFolder, plain, without_nulls
from xl.methods import METHODS, arm_of, conclude, load_method, method_stages, role_trainings
from xl.pages.manifest import Manifest, estimated_bytes, make_manifest
from xl.pages.read import SourceFile
from xl.pipeline import Engines, Pipeline, Role, as_tuned, find_model, tuned_role
from xl.progress import waiting
from xl.recipe import Model, PageRecipe, Recipe
from xl.records import PAGE_SCHEMA, Row
from xl.settings import semantic
from xl.stage import RowStage, Stage, fingerprints
from xl.store import read_json
from xl.train.precision import with_precision
from xl.train.roles import RoleTraining, make_model, train_anew_if_changed

INPUT = "input"
"""Stage that holds the rows of a method which reads them itself."""


@dataclass(frozen=True)
class Options:
    """How to run, beside the recipe."""

    limit: int | None = None
    redo: bool = False
    fresh: bool = False
    retry_failed: bool = False
    address: str | None = None
    num_cpus: int | None = None
    until: Literal["pages", "dataset"] | None = None
    """Where to stop; the run stays unfinished."""


@dataclass
class Job:
    """A run in progress."""

    recipe: Recipe
    run: RunFolder
    options: Options
    console: Console
    models: dict[str, ResolvedModel]
    trainings: dict[str, RoleTraining]
    """Of those models that the run makes itself, by role."""
    stages: list[Stage]
    engines: Engines

    @functools.cached_property
    def files(self) -> list[SourceFile]:
        """The input's files as they are at the beginning: what comes later is for the next time."""
        return self.recipe.files()

    @property
    def source_fingerprint(self) -> str:
        """Hash of how the input is read. Which files and languages there are does not count: more of them extend a run."""
        return hashlib.blake2b(json.dumps(self.recipe.input_settings(), sort_keys=True).encode(), digest_size=16).hexdigest()

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of each stage."""
        return fingerprints(self.stages, self.source_fingerprint)

    @property
    def roles(self) -> dict[str, Role]:
        """The recipe's models by role."""
        return {role: (self.model(role), resolved) for role, resolved in self.models.items()}

    def model(self, role: str) -> Model:
        """The recipe's model of a role, as it is run."""
        model = self.recipe.model_for(role)
        return as_tuned(model) if role in self.trainings else model

    def pipeline(self) -> Pipeline:
        """The stages from pages to the dataset."""
        return Pipeline(
            self.run,
            self.stages,
            self.roles,
            self.recipe.seed,
            self.source_fingerprint,
            self.engines,
            self.console,
            self.options.retry_failed,
            self.player,
            frozenset(self.trainings),
        )

    def player(self, role: str) -> Role | None:
        """The model of a role, now that its first row is to ask it; None where the run's rows taught it nothing new.

        What learns from rows of the run is made here, and a model with an exam takes it.
        """
        model, training = self.model(role), self.trainings.get(role)
        if training is None:
            return model, self.models[role]
        target = self.run.role_folder(role)
        if training.lessons:
            kept = dataset.kept_rows(self.run.store(training.lessons.stage), summary.shard_names(self.run))
            if (training := training.taught(kept)) is None:
                self.console.print(f"model of the role {role}: there is nothing new to learn, and no row asks it", highlight=False)
                return None
            self.make(role, training)
        player = model, training.model(target)
        if training.exam and not self.run.is_shared(f"models/{role}"):
            take_exam(training.exam, target / "exam", role, player, self.recipe.seed, self.engines, self.console)
        return player

    def make(self, role: str, training: RoleTraining) -> None:
        """Make the model of a role, unless it is there. What an arm shares is the run's own, which is made and examined."""
        if self.run.is_shared(f"models/{role}"):
            return
        self.console.print(f"model of the role {role}: {training.base.name}, tuned on {training.amount}", highlight=False)
        make_model(training, self.run.role_folder(role), self.engines.make_room_for, self.console)


def resolve_models(recipe: Recipe, run: RunFolder) -> tuple[dict[str, ResolvedModel], dict[str, RoleTraining]]:
    """The recipe's models by role, and what those are trained on that the run makes itself. Raises UserError for one that is not there."""
    models = {role: find_model(recipe.model_for(role)) for role in recipe.roles}
    trainings = role_trainings(recipe, models)
    return models | {role: training.model(run.role_folder(role)) for role, training in trainings.items()}, trainings


def run_recipe(recipe: Recipe, out: Path, options: Options, console: Console) -> bool:
    """Run or continue a recipe and its arms in a folder; whether there was anything to do.

    Raises:
        UserError: something in the recipe, the input, the folder or the machine is for the user to mend.
    """
    engines = Engines(console)

    def planned(recipe: Recipe, run: RunFolder) -> Job:
        arms_folder.unshare(run)
        models, trainings = resolve_models(recipe, run)
        return Job(recipe, run, options, console, models, trainings, method_stages(recipe, models), engines)

    run = folder.claim(out)
    with folder.locked(run):
        folder.discard(run, ())
        main, *arms = jobs = [planned(recipe, run), *(planned(arm_of(recipe, name), run.arm(name)) for name in recipe.arms)]
        if options.fresh:
            _start_over(run)
        todo = [job for job in jobs if _has_work(job, main)]
        if todo:
            _execute_all(main, todo)
        for arm in arms:
            _share(main, arm)
    return bool(todo)


def _has_work(job: Job, main: Job) -> bool:
    """Whether anything of the job is left to do; makes room for it where `--redo` says so. Raises UserError for what would mix."""
    has_work = not _is_up_to_date(job) or job.options.retry_failed
    cleaned = next((run.root for run in (main.run, job.run) if run.info.get("cleaned")), None)
    if has_work and cleaned:
        raise UserError(f"{cleaned} was cleaned: the rows that more work would start from are gone. Use --fresh, or another --out")
    _refuse_other_training(job)
    settings = job.recipe.input_settings()
    cleared = folder.check_fingerprints(job.run, job.stages, job.source_fingerprint, settings, job.options.redo, kept=(INPUT,))
    if cleared:
        job.console.print(f"redoing {', '.join(cleared)}", highlight=False)
    return has_work


def _share(main: Job, arm: Job) -> None:
    """Let an arm have what is the run's as well: of the same input the stages of the same fingerprint, and models of the same training."""
    if _input(arm) == _input(main):
        there = main.fingerprints
        if isinstance(arm.recipe, PageRecipe):
            arms_folder.share(main.run, arm.run, [main.run.manifest.name])
        common = [name for name, fingerprint in arm.fingerprints.items() if there.get(name) == fingerprint]
        arms_folder.share(main.run, arm.run, (f"stages/{name}" for name in common))
    for role, training in arm.trainings.items():
        is_same = role in main.models and main.models[role].digest == training.digest
        if is_same and (training.lessons is None or arm.run.is_shared(f"stages/{training.lessons.stage}")):
            arms_folder.share(main.run, arm.run, [f"models/{role}"])


def _execute_all(main: Job, todo: list[Job]) -> None:
    from xl.ray_session import ray_session

    for model in dict.fromkeys(model for job in todo for model in job.models.values()):
        prepare(model)
    with contextlib.ExitStack() as session:
        with waiting(main.console, "starting Ray"):
            session.enter_context(ray_session(main.options.address, main.options.num_cpus))
        session.enter_context(main.engines)
        with waiting(main.console, "waiting for a node for pages that sees the run's folder"):
            folder.check_shared(main.run)
        _send_code(main.recipe.method)
        for job in todo:
            if job is not main:
                main.console.print(f"\n[bold]arm {job.run.root.name}[/bold]", highlight=False)
                _share(main, job)
            _note(job)
            _execute(job)


def _start_over(run: RunFolder) -> None:
    if run.info:
        run.write_info({**run.info, "finished": None})  # whatever ends this
    parts = ("arms", "models", "held_out", "stages")
    places = (run.manifest, run.dataset, run.training, run.evaluation.root, run.benchmarks.root)
    folder.discard(run, (*(run.root / part for part in parts), *places))
    for path in (run.root / "recipe.yaml", run.root / "rounds.json", run.report, run.root / "run.json"):
        storage.delete_file(path)


def _input(job: Job) -> dict[str, Any]:
    """What decides which rows come in."""
    files = [[file.path, file.size, file.stamp] for file in job.files]
    return {"files": files, "limit": job.options.limit, "input": job.recipe.input_choice()}


def _state(job: Job) -> dict[str, Any]:
    """What must be unchanged for a finished run to be left alone: its input, how it is taken, and every stage."""
    after = {part: plain(semantic(settings)) for part in ("train", "evaluate") if (settings := getattr(job.recipe, part))}
    if job.recipe.benchmarks:
        after["benchmarks"] = [plain(semantic(task)) for task in job.recipe.benchmarks]
    return {
        **_input(job),
        "languages": sorted(job.recipe.languages),
        "fingerprints": job.fingerprints,
        "models": {role: model.digest for role, model in job.models.items()},
        **after,
    }


def _is_up_to_date(job: Job) -> bool:
    finished = job.run.info.get("finished")
    is_same = finished is not None and without_nulls(finished) == without_nulls(json.loads(json.dumps(_state(job))))
    return is_same and job.run.dataset.exists() and job.run.report.exists()


def _note(job: Job) -> None:
    recipe = job.recipe.model_dump(mode="json", by_alias=True)
    licences = {m.name: m.licence for m in job.models.values() if m.licence}
    info = {
        **job.run.info,
        "name": job.run.root.name,
        "recipe": recipe,
        "limit": job.options.limit,
        "environment": folder.environment(),
        "models": {role: {"name": m.name, "digest": m.digest, "licence": m.licence} for role, m in job.models.items()},
        "stages": [*(() if isinstance(job.recipe, PageRecipe) else (INPUT,)), *(stage.name for stage in job.stages)],
        "attempts": job.run.info.get("attempts", 0) + 1,
        "finished": None,
    }
    job.run.write_info({"created": time.strftime("%Y-%m-%d %H:%M"), **info})
    (job.run.root / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False), "utf-8")
    for name, licence in licences.items():
        job.console.print(f"{name}: used under its licence, {licence}", highlight=False)


def _execute(job: Job) -> None:
    state, until = _state(job), job.options.until
    if until == "pages":
        _filter_pages(job)
        return
    # A page's file that cannot be read is told before hours of training.
    manifest = _index_pages(job, job.recipe) if isinstance(job.recipe, PageRecipe) else None
    for role, training in job.trainings.items():
        if not training.lessons:
            job.make(role, training)
    names = _take_pages(job, manifest) if manifest else _take_rows(job)
    conclude(job.recipe, job.run, names)
    num_pairs = write_dataset(job.run, job.recipe, names)
    if until == "dataset":
        return
    if job.recipe.train:
        if not num_pairs:
            raise UserError(f"there is nothing to train on: no pair was accepted; `xl status {job.run.root}` says why")
        _train(job)
    if job.recipe.evaluate:
        _evaluate(job)
    if job.recipe.benchmarks:
        _ask_benchmarks(job)
    job.run.report.write_text(summary.report(job.run, job.recipe, names), "utf-8")
    job.run.write_info({**job.run.info, "finished": state, "shards": names})


def _filter_pages(job: Job) -> None:
    """Take the pages through the stages that come before the first one that asks a model."""
    if not isinstance(job.recipe, PageRecipe):
        raise UserError(f"--until pages: the method {job.recipe.method} reads no pages")
    ahead = itertools.takewhile(lambda stage: not (isinstance(stage, RowStage) and stage.model), job.stages)
    _take_pages(replace(job, stages=list(ahead)), _index_pages(job, job.recipe))


def _index_pages(job: Job, recipe: PageRecipe) -> Manifest:
    """Find out which pages there are."""
    from xl.execute import parallel

    job.engines.make_room_for_a_cpu()
    manifest = make_manifest(job.run.manifest, job.files, recipe.pages, recipe.page_languages, job.options.limit, parallel)
    _check_disk(job, manifest)
    return manifest


def _take_pages(job: Job, manifest: Manifest) -> list[str]:
    """Take the pages through the job's stages; returns the names of their shards."""
    from xl.worker import FromManifest

    job.engines.make_room_for_a_cpu()
    job.pipeline().take(FromManifest(manifest), manifest.shards, PAGE_SCHEMA)
    return [shard.name for shard in manifest.shards]


def _take_rows(job: Job) -> list[str]:
    """Take the rows that the method reads through its stages; returns the names of their shards."""
    rows, schema = load_method(job.recipe.method).rows(job.recipe)
    taken: Counter[tuple[str | None, ...]] = Counter()
    limit = job.options.limit

    def within_limit(row: Row) -> bool:
        kind = tuple(row.get(name) for name in ("method", "direction", "request_lang", "lang"))
        taken[kind] += 1
        return limit is None or taken[kind] <= limit

    take_rows(job.pipeline(), list(filter(within_limit, rows)), schema, INPUT)
    return summary.shard_names(job.run)


def _send_code(method: str) -> None:
    """Let workers have a method of one's own: they cannot import its file."""
    import ray

    if method not in METHODS:
        ray.cloudpickle.register_pickle_by_value(load_method(method))


def write_dataset(run: RunFolder, recipe: Recipe, shards: list[str]) -> int:
    """Write the dataset and its card from the stages' shards; returns the number of pairs."""
    models = {role: model["name"] for role, model in run.info["models"].items()}
    store, card = run.store(run.info["stages"][-1]), summary.card(run, recipe, shards)
    return dataset.export(store, shards, recipe.method, models, run.dataset, card)


def _check_disk(job: Job, manifest: Manifest) -> None:
    need, free = estimated_bytes(manifest), storage.free_bytes(job.run.root)
    if need > free:
        amounts = f"the run needs about {decimal(need)} and {decimal(free)} are free"
        raise UserError(f"--out {job.run.root}: {amounts}; choose another folder or a --limit")


def _refuse_other_training(job: Job) -> None:
    """Refuse settings that are not those of the model that was begun. Another dataset is no reason: more pages extend a run."""
    before = read_json(job.run.training / "train.json")
    if before is None or job.recipe.train is None or job.options.redo:
        return
    now = plain({"model": job.models["base"].digest, "train": semantic(with_precision(job.recipe.train, before))})
    if changed := list(folder.differences("", {key: before[key] for key in now}, now)):
        raise UserError(
            f"the recipe differs from the one that began {job.run.training}: {'; '.join(changed)}. This touches the model and its answers. "
            "Use --redo to redo those and keep the rest, --fresh to start over, or another --out"
        )


def _train(job: Job) -> None:
    """Tune the base model on the dataset."""
    settings, base = job.recipe.train, job.models["base"]
    assert settings is not None
    result = train_anew_if_changed(job.run.dataset, base, job.run.training, settings, job.engines.make_room_for, job.console)
    last = result.metrics[-1]
    job.console.print(f"model: {last.step:,} steps, loss {result.metrics[0].loss:.3f} → {last.loss:.3f}", highlight=False)


def _evaluate(job: Job) -> None:
    from xl.evaluate.run import Evaluation, run_evaluation

    settings, run = job.recipe.evaluate, job.run
    assert settings is not None
    roles = {role: known for role, known in job.roles.items() if role in ("base", "judge")}
    if "tuned" in settings.arms:
        roles["tuned"] = tuned_role(job.recipe.model_for("base"), run.training)
    evaluation = Evaluation(settings, settings.languages or job.recipe.languages, job.recipe.seed, roles, run.dataset)
    run_evaluation(evaluation, run.evaluation, job.engines, job.console, redo=job.options.redo, retry_failed=job.options.retry_failed)


def _ask_benchmarks(job: Job) -> None:
    from xl.evaluate.benchmarks.judging import judge_answers
    from xl.evaluate.benchmarks.results import write_results
    from xl.evaluate.benchmarks.run import Benchmarking, run_benchmarks

    recipe, run, options = job.recipe, job.run, job.options
    roles = {"base": job.roles["base"]}
    if recipe.train:
        roles["tuned"] = tuned_role(recipe.model_for("base"), run.training)
    wanted = Benchmarking(recipe.benchmarks, recipe.languages, recipe.seed, roles, job.roles.get("judge"))
    run_benchmarks(wanted, run.benchmarks, job.engines, job.console, redo=options.redo, retry_failed=options.retry_failed)
    judge_answers(wanted, run.benchmarks, job.engines, job.console, redo=options.redo, retry_failed=options.retry_failed)
    write_results(run.benchmarks, recipe.seed)
