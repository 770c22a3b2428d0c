"""Run a recipe: plan the input, take each stage where it is, and write down what came of it."""

import hashlib
import importlib
import json
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from rich.console import Console

from xl import dataset, folder, summary
from xl.engines.models import ResolvedModel, prepare, resolve
from xl.errors import UserError
from xl.folder import RunFolder
from xl.pages.manifest import Manifest, estimated_bytes, make_manifest
from xl.pages.read import list_files
from xl.progress import StageProgress, left
from xl.recipe import ROLES, Recipe
from xl.records import PAGE_SCHEMA
from xl.stage import RowStage, Stage, WholeStage, fingerprints, passes, schema_after
from xl.store import InputShard, Ledger, PassStores

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to run, beside the recipe."""

    limit: int | None = None
    redo: bool = False
    fresh: bool = False
    retry_failed: bool = False
    address: str | None = None
    num_cpus: int | None = None


@dataclass
class Job:
    """A run in progress."""

    recipe: Recipe
    run: RunFolder
    options: Options
    console: Console
    models: dict[str, ResolvedModel]
    stages: list[Stage]
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    host: Any = None

    @property
    def source_fingerprint(self) -> str:
        """Hash of how pages are read. Which files and languages there are does not count: more of them extend a run."""
        return hashlib.blake2b(json.dumps(self.source_settings, sort_keys=True).encode(), digest_size=16).hexdigest()

    @property
    def source_settings(self) -> dict[str, Any]:
        """How pages are read: everything but where they are."""
        return self.recipe.pages.model_dump(mode="json", exclude={"from_"})


def resolve_models(recipe: Recipe) -> dict[str, ResolvedModel]:
    """The recipe's models by role. Raises UserError for one that is not there."""
    found: dict[str, ResolvedModel] = {}
    for role in ROLES:
        model = recipe.model_for(role)
        if model.engine == "vllm":
            found[role] = resolve(model.model, model.revision)
        else:
            found[role] = ResolvedModel(model.model, model.model, f"{model.engine}:{model.model}", None, model.chat)
    return found


def method_stages(recipe: Recipe, models: dict[str, ResolvedModel]) -> list[Stage]:
    """The stages of the recipe's method."""
    module = importlib.import_module(f"xl.methods.{recipe.method}")
    stages: list[Stage] = module.stages(recipe, models)
    return stages


def run_recipe(recipe: Recipe, out: Path, options: Options, console: Console) -> bool:
    """Run or continue a recipe in a folder; whether there was anything to do.

    Raises:
        UserError: something in the recipe, the input, the folder or the machine is for the user to mend.
    """
    models = resolve_models(recipe)
    run = folder.claim(out)
    with folder.locked(run):
        job = Job(recipe, run, options, console, models, method_stages(recipe, models))
        if options.fresh:
            _start_over(run)
        if run.info.get("cleaned") and (options.retry_failed or not _is_up_to_date(job)):
            raise UserError(f"{out} was cleaned: the rows that more work would start from are gone. Use --fresh, or another --out")
        cleared = folder.check_fingerprints(run, job.stages, job.source_fingerprint, job.source_settings, options.redo)
        if cleared:
            console.print(f"redoing {', '.join(cleared)}", highlight=False)
        if not options.retry_failed and _is_up_to_date(job):
            return False
        _note(job)
        _execute(job)
    return True


def _start_over(run: RunFolder) -> None:
    for name in ("stages", "manifest", "dataset"):
        shutil.rmtree(run.root / name, ignore_errors=True)
    for name in ("run.json", "report.html"):
        (run.root / name).unlink(missing_ok=True)


def _state(job: Job) -> dict[str, Any]:
    """What must be unchanged for a finished run to be left alone: its input, how it is taken, and every stage."""
    files = [[file.path, file.size, file.stamp] for file in list_files(job.recipe.pages)]
    return {
        "files": files,
        "languages": sorted(job.recipe.languages),
        "limit": job.options.limit,
        "fingerprints": fingerprints(job.stages, job.source_fingerprint),
    }


def _is_up_to_date(job: Job) -> bool:
    finished = job.run.info.get("finished")
    return finished is not None and finished == json.loads(json.dumps(_state(job))) and job.run.dataset.exists() and job.run.report.exists()


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
        "stages": [stage.name for stage in job.stages],
        "attempts": job.run.info.get("attempts", 0) + 1,
        "finished": None,
    }
    job.run.write_info({"created": time.strftime("%Y-%m-%d %H:%M"), **info})
    (job.run.root / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False), "utf-8")
    for name, licence in licences.items():
        job.console.print(f"{name}: used under its licence, {licence}", highlight=False)


def _execute(job: Job) -> None:
    from xl.execute import parallel, ray_session

    state = _state(job)
    for model in dict.fromkeys(job.models.values()):
        prepare(model)
    with job.console.status("starting Ray"):
        session = ray_session(job.options.address, job.options.num_cpus)
        session.__enter__()
    try:
        manifest = make_manifest(
            job.run.manifest, list_files(job.recipe.pages), job.recipe.pages, job.recipe.languages, job.options.limit, parallel
        )
        _check_disk(job, manifest)
        _run_stages(job, manifest)
        if job.host is not None:
            import ray

            ray.get(job.host.close.remote())
    finally:
        session.__exit__(None, None, None)
    names = [shard.name for shard in manifest.shards]
    finish(job.run, job.recipe, names)
    job.run.write_info({**job.run.info, "finished": state, "shards": names})


def finish(run: RunFolder, recipe: Recipe, shards: list[str]) -> None:
    """Write the dataset, its card and the report from the stages' shards."""
    stages = run.info["stages"]
    card = summary.card(run, recipe, shards)
    dataset.export(run.store(stages[-1]), shards, recipe, run.dataset, card)
    run.report.write_text(summary.report(run, recipe, shards), "utf-8")


def _check_disk(job: Job, manifest: Manifest) -> None:
    need, free = estimated_bytes(manifest), folder.free_bytes(job.run.root)
    if need > free:
        amounts = f"the run needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
        raise UserError(f"--out {job.run.root}: {amounts}; choose another folder or a --limit")


def _run_stages(job: Job, manifest: Manifest) -> None:
    from xl.worker import FromManifest, FromStage

    source: FromManifest | FromStage = FromManifest(manifest)
    shards, schema = manifest.shards, PAGE_SCHEMA
    keys = fingerprints(job.stages, job.source_fingerprint)
    for group in passes(job.stages):
        schemas: list[pa.Schema] = []
        for stage in group:
            schema = schema_after(stage, schema)
            schemas.append(schema)
            folder.record_stage(job.run, stage, keys[stage.name])
        if isinstance(group[0], WholeStage):
            assert isinstance(source, FromStage), "a method begins with a row stage"
            _run_whole(job, group[0], source, shards, schema)
        else:
            row_stages = tuple(stage for stage in group if isinstance(stage, RowStage))
            _run_pass(job, row_stages, tuple(schemas), source, shards)
        for stage in group:
            shards = _close_stage(job, stage, shards)
        source = FromStage(job.run.store(group[-1].name))


def _run_pass(job: Job, stages: tuple[RowStage, ...], schemas: tuple[pa.Schema, ...], source: Any, shards: list[InputShard]) -> None:
    from xl.execute import run_rows
    from xl.worker import FromStage, Plan

    # What is finished for all shards needs no engine: the pass begins after it.
    while len(stages) > 1 and _is_finished(job, stages[0], schemas[0], shards):
        store = job.run.store(stages[0].name)
        source, shards = FromStage(store), [entry.as_input() for entry in store.all_sealed([s.name for s in shards])]
        stages, schemas = stages[1:], schemas[1:]
    stores = PassStores(stages, tuple(job.run.store(stage.name) for stage in stages), schemas)
    plan = Plan(stores, job.attempt, job.recipe.seed, job.options.retry_failed)
    todo = [s for s in shards if not stores.is_done(s) or (job.options.retry_failed and stores.num_failed(s))]
    if not todo:
        return
    if role := next((stage.model for stage in stages if stage.model), None):
        plan = _with_engine(job, plan, role)
    name = " + ".join(stage.name for stage in stages)
    started = time.monotonic()
    with StageProgress(job.console, name, sum(shard.num_rows for shard in todo)) as progress:
        run_rows(plan, source, todo, progress)
    _add_seconds(job, stages[0].name, time.monotonic() - started)


def _is_finished(job: Job, stage: RowStage, schema: pa.Schema, shards: list[InputShard]) -> bool:
    alone = PassStores((stage,), (job.run.store(stage.name),), (schema,))
    return all(alone.is_done(s) and not (job.options.retry_failed and alone.num_failed(s)) for s in shards)


def _with_engine(job: Job, plan: Any, role: str) -> Any:
    """The plan with its model and, for engines of our own, the host that keeps them, started and warm."""
    import asyncio

    from xl.engines.pool import start_host
    from xl.worker import open_engine

    model = job.recipe.model_for(role)
    if job.host is None and model.engine != "openai":
        job.host = start_host()
    key = json.dumps([model.model_dump(mode="json"), job.models[role].digest])
    plan = replace(plan, model=model, resolved=job.models[role], engine_key=key, host=job.host)
    started = time.monotonic()
    with job.console.status(f"starting the engine of {model.model}"):
        engine = asyncio.run(_open_once(open_engine, plan))
    if time.monotonic() - started > 1:
        job.console.print(f"engine of {model.model} ready after {left(time.monotonic() - started)}", highlight=False)
    return replace(plan, resolved=replace(job.models[role], chat=engine))


async def _open_once(open_engine: Callable[[Any], Any], plan: Any) -> bool:
    engine = await open_engine(plan)
    try:
        return bool(engine.chat)
    finally:
        await engine.close()


def _run_whole(job: Job, stage: WholeStage, source: Any, shards: list[InputShard], schema: pa.Schema) -> None:
    """A whole stage is done when its marker names just this input; otherwise all of it is done again."""
    from xl.execute import run_whole

    store = job.run.store(stage.name)
    marker = hashlib.blake2b(json.dumps([[s.name, s.digest] for s in shards]).encode(), digest_size=16).hexdigest()
    info = job.run.stage_info(stage.name)
    if info.get("input") == marker and all(store.path(shard.name).exists() for shard in shards):
        return
    job.run.write_stage_info(stage.name, {**info, "input": None})
    started = time.monotonic()
    with StageProgress(job.console, stage.name, sum(shard.num_rows for shard in shards)) as progress:
        run_whole(stage, store, source.store, shards, schema, progress)
    job.run.write_stage_info(stage.name, {**job.run.stage_info(stage.name), "input": marker})
    _add_seconds(job, stage.name, time.monotonic() - started)


def _add_seconds(job: Job, stage: str, seconds: float) -> None:
    info = job.run.stage_info(stage)
    job.run.write_stage_info(stage, {**info, "seconds": round(info.get("seconds", 0.0) + seconds, 2)})


def _close_stage(job: Job, stage: Stage, shards: list[InputShard]) -> list[InputShard]:
    """Check that the stage's ledger accounts for every row that came in; returns what goes on."""
    sealed = job.run.store(stage.name).all_sealed([shard.name for shard in shards])
    accounted: dict[str, Ledger] = {}
    for entry in sealed:
        for lang, ledger in entry.ledger.items():
            accounted.setdefault(lang, Ledger()).merge(ledger)
    expected: dict[str, int] = {}
    for shard in shards:
        for lang, count in shard.languages.items():
            expected[lang] = expected.get(lang, 0) + count
    found = {lang: ledger.num_in for lang, ledger in accounted.items() if ledger.num_in}
    if found != expected:
        raise RuntimeError(f"stage {stage.name}: the ledger does not balance: {expected} rows came in, {found} are accounted for")
    failed = sum(ledger.failed.total() for ledger in accounted.values())
    if failed and failed == sum(expected.values()):
        kind = max((k for ledger in accounted.values() for k in ledger.failed.items()), key=lambda item: item[1])[0]
        raise UserError(
            f"stage {stage.name}: all {failed:,} rows failed, most with: {kind}. Mend the cause, then run again with --retry-failed"
        )
    return [entry.as_input() for entry in sealed]
