"""Take rows through a list of stages: skip what is finished, go on where a stage was, and account for every row."""

import asyncio
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from rich.console import Console

from xl import folder, placement
from xl.engines.models import ResolvedModel, prepare, resolve
from xl.errors import UserError
from xl.folder import RunFolder
from xl.progress import StageProgress, left, waiting
from xl.recipe import Model
from xl.stage import RowStage, Stage, WholeStage, fingerprints, passes, schema_after
from xl.store import InputShard, Ledger, PassStores, StageStore, side_by_side
from xl.train.settings import Train

Role = tuple[Model, ResolvedModel]
"""A model of the recipe, and where its weights are."""

SETTLING_SECONDS = 3.0
"""What has just ended is still counted as taken for a moment; only what lasts longer stands in the way."""


def find_model(model: Model) -> ResolvedModel:
    """Where a model's weights are; an endpoint's model has none. Raises UserError for a model that is not there."""
    if model.engine == "vllm":
        return resolve(model.model, model.revision)
    return ResolvedModel(model.model, model.model, f"{model.engine}:{model.model}", None, model.chat)


def as_tuned(base: Model) -> Model:
    """How a model is run that was tuned here: as its base is, but asked by the chat template that it was trained with."""
    return base.model_copy(update={"revision": None, "chat": None})


def tuned_model(base: Model, training: Path) -> Model:
    """The model that a training made of `base`, run the way that `base` is."""
    return as_tuned(base).model_copy(update={"model": str(training / "model")})


def tuned_role(base: Model, training: Path) -> Role:
    """The model that a training made of `base`, and where its weights are. Raises UserError for one that is not there."""
    tuned = tuned_model(base, training)
    return tuned, find_model(tuned)


class Engines:
    """The run's engines: started when a stage first asks, shared by all stages that use the same model, ended with the run.

    As a context they end with its block: those of a run that fails at once, whatever they are doing.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self.host: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is None:
            self.close()
        elif self.host is not None:
            import ray

            ray.kill(self.host)  # engines end with the host that owns them

    def open(self, plan: Any, role: Role) -> Any:
        """The plan with its model and, for engines of our own, the host that keeps them, started and warm."""
        from xl.engines.host import needs_of
        from xl.worker import open_engine

        model, resolved = role
        prepare(resolved)
        key = engine_key(role)
        if model.engine != "openai":
            self._start_host()
            self.make_room(needs_of(model), placement.of(model, model.gpus), model.replicas[0], key)
        plan = replace(plan, model=model, resolved=resolved, engine_key=key, host=self.host)
        started = time.monotonic()
        with waiting(self._console, f"starting the engine of {model.model} ({_wanted(model)})"):
            chat = asyncio.run(_open_once(open_engine, plan))
        if time.monotonic() - started > 1:
            self._console.print(f"engine of {model.model} ready after {left(time.monotonic() - started)}", highlight=False)
        return replace(plan, resolved=replace(resolved, chat=chat))

    def expect(self, role: Role) -> None:
        """Have an engine start, and do not wait for it, where its machine is one that no step before it uses: on a cluster with pools."""
        model, resolved = role
        if placement.beside_engines() and model.engine != "openai" and model.gpus:
            prepare(resolved)
            self._start_host()
            self.host.ready.remote(engine_key(role), model, resolved)

    def _start_host(self) -> None:
        from xl.engines.host import start_host
        from xl.ray_session import worker_environment

        if self.host is None:
            self.host = start_host(worker_environment())

    def make_room(self, needs: Mapping[str, float], labels: Mapping[str, str], count: int = 1, key: str | None = None) -> None:
        """End the engines of all models but `key` unless there is room for `count` processes, each of which wants `needs` of one machine
        with these labels.

        On a cluster that can still grow, this may be too early.
        """
        import ray

        from xl.engines.host import num_that_fit

        others = ray.get(self.host.keys.remote()) - {key} if self.host else set()
        if not others or (key is not None and ray.get(self.host.is_up.remote(key))):
            return
        end = time.monotonic() + SETTLING_SECONDS
        while num_that_fit(needs, labels, count) < count:
            if time.monotonic() > end:
                ray.get(self.host.close.remote())
                return
            time.sleep(0.1)

    def make_room_for_a_cpu(self) -> None:
        """End the engines if they hold every CPU that a step without a model could use; with more it does more at once."""
        self.make_room({"CPU": 1.0}, placement.beside_engines())

    def make_room_for(self, training: Train) -> None:
        """End the engines if a training needs what they hold."""
        needs = {"CPU": training.cpus_per_worker, "GPU": training.gpus_per_worker}
        self.make_room(needs, placement.of(training, training.gpus_per_worker), training.min_workers or training.workers)

    def close(self) -> None:
        """End all engines."""
        if self.host is not None:
            import ray

            ray.get(self.host.close.remote())


def _wanted(model: Model) -> str:
    """What an engine wants of its machine, in words."""
    if model.engine == "openai":
        return str(model.url)
    kind = f" {model.accelerator}" if model.accelerator else ""
    labels = "".join(f", {name}={value}" for name, value in model.labels.items())
    return f"{model.gpus:g} GPUs{kind}, {model.cpus:g} CPUs{labels}"


def engine_key(role: Role) -> str:
    """What engines of the same model and settings have in common.

    The digest of a model that a run trains for itself names what it is made of, and arms that made theirs of other rows have others:
    the real path tells them apart.
    """
    model, resolved = role
    return json.dumps([model.model_dump(mode="json"), resolved.digest, os.path.realpath(resolved.path)])


async def _open_once(open_engine: Callable[[Any], Any], plan: Any) -> bool:
    engine = await open_engine(plan)
    try:
        return bool(engine.chat)
    finally:
        await engine.close()


@dataclass
class Pipeline:
    """A list of stages at work in a folder."""

    run: RunFolder
    stages: list[Stage]
    roles: Mapping[str, Role]
    seed: int
    source_fingerprint: str
    """Hash of how the rows are read that come into the first stage."""
    engines: Engines
    console: Console
    retry_failed: bool = False
    player: Callable[[str], Role | None] | None = None
    """Gives the model of a role when its first row is to ask it, instead of `roles`; None for one that no row will ask."""
    made: frozenset[str] = frozenset()
    """Roles whose models the run makes itself."""
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def take(self, source: Any, shards: list[InputShard], schema: pa.Schema) -> list[InputShard]:
        """Take rows through all stages; returns what the last one kept.

        Args:
            source: where the rows of the first stage are read (`xl.worker.FromManifest` or `FromStage`).
            shards: what it must give.
            schema: columns of those rows.

        Raises:
            UserError: an engine cannot work, the disk is full, or all rows of a stage failed.
        """
        from xl.worker import FromStage

        keys = fingerprints(self.stages, self.source_fingerprint)
        todo = passes(self.stages)
        for number, together in enumerate(todo, 1):
            shared = [stage for stage in together if self.run.is_shared(f"stages/{stage.name}")]
            for stage in shared:
                schema, source = schema_after(stage, schema), FromStage(self.run.store(stage.name))
                shards = self._close_stage(stage, shards)
            group = together[len(shared) :]
            if not group:
                continue
            schemas: list[pa.Schema] = []
            for stage in group:
                schema = schema_after(stage, schema)
                schemas.append(schema)
                folder.record_stage(self.run, stage, keys[stage.name])
            expect_engine = partial(self._expect_engine, todo[number:])
            if isinstance(group[0], WholeStage):
                assert isinstance(source, FromStage), "a method begins with a row stage"
                expect_engine()
                self._run_whole(group[0], source.store, shards, schema)
            else:
                row_stages = tuple(stage for stage in group if isinstance(stage, RowStage))
                self._run_pass(row_stages, tuple(schemas), source, shards, expect_engine)
            for stage in group:
                shards = self._close_stage(stage, shards)
            source = FromStage(self.run.store(group[-1].name))
        return shards

    def _expect_engine(self, later: Sequence[Sequence[Stage]]) -> None:
        """Have the engine that rows ask next start meanwhile, unless its pass has begun before or makes its model first."""
        for stages in later:
            role = next((stage.model for stage in stages if isinstance(stage, RowStage) and stage.model), None)
            if role is not None:
                if role in self.roles and role not in self.made and "seconds" not in self.run.stage_info(stages[0].name):
                    self.engines.expect(self.roles[role])
                return

    def _run_pass(
        self,
        stages: tuple[RowStage, ...],
        schemas: tuple[pa.Schema, ...],
        source: Any,
        shards: list[InputShard],
        expect_engine: Callable[[], None],
    ) -> None:
        """A pass that asks no model has the engine of a later one expected as soon as it is nearly done."""
        from xl.execute import run_rows
        from xl.worker import FromStage, Plan

        # What is finished for all shards needs no engine: the pass begins after it.
        while len(stages) > 1 and self._is_finished(stages[0], schemas[0], shards):
            store = self.run.store(stages[0].name)
            source, shards = FromStage(store), [entry.as_input() for entry in store.all_sealed([s.name for s in shards])]
            stages, schemas = stages[1:], schemas[1:]
        stores = PassStores(stages, tuple(self.run.store(stage.name) for stage in stages), schemas)
        plan = Plan(stores, self.attempt, self.seed, self.retry_failed)
        todo = list(stores.to_do(shards, self.retry_failed))
        if not todo:
            return
        role = next((stage.model for stage in stages if stage.model), None)
        if role and (player := self._player(role)):
            plan = self.engines.open(plan, player)
        else:
            self.engines.make_room_for_a_cpu()
        name = " + ".join(stage.name for stage in stages)
        started = time.monotonic()
        nearly_done = None if role else expect_engine
        with StageProgress(self.console, name, sum(shard.num_rows for shard in todo), nearly_done=nearly_done) as progress:
            run_rows(plan, source, todo, progress)
        self._add_seconds(stages[0].name, time.monotonic() - started, plan)

    def _player(self, role: str) -> Role | None:
        return self.player(role) if self.player else self.roles[role]

    def _is_finished(self, stage: RowStage, schema: pa.Schema, shards: list[InputShard]) -> bool:
        alone = PassStores((stage,), (self.run.store(stage.name),), (schema,))
        return next(alone.to_do(shards, self.retry_failed), None) is None

    def _run_whole(self, stage: WholeStage, before: StageStore, shards: list[InputShard], schema: pa.Schema) -> None:
        """A whole stage is done when its marker names just this input; otherwise all of it is done again."""
        from xl.execute import run_whole

        store = self.run.store(stage.name)
        marker = hashlib.blake2b(json.dumps([[s.name, s.digest] for s in shards]).encode(), digest_size=16).hexdigest()
        info = self.run.stage_info(stage.name)
        if info.get("input") == marker and all(side_by_side(lambda shard: store.path(shard.name).exists(), shards)):
            return
        self.run.write_stage_info(stage.name, {**info, "input": None})
        self.engines.make_room_for_a_cpu()
        started = time.monotonic()
        with StageProgress(self.console, stage.name, sum(shard.num_rows for shard in shards)) as progress:
            remarks = run_whole(stage, store, before, shards, schema, progress)
        for remark in remarks:
            self.console.print(f"{stage.name}: {remark}", highlight=False, markup=False)
        self.run.write_stage_info(stage.name, {**self.run.stage_info(stage.name), "input": marker, "remarks": remarks})
        self._add_seconds(stage.name, time.monotonic() - started)

    def _add_seconds(self, stage: str, seconds: float, plan: Any = None) -> None:
        """Note how long a pass took, and on how many CPUs and engines: what `xl plan --calibration` goes by."""
        import ray

        info, nodes = self.run.stage_info(stage), placement.nodes(placement.beside_engines())
        there = {"cpus": sum(node["Resources"].get("CPU", 0.0) for node in nodes)}
        if plan is not None and plan.model is not None and plan.model.engine != "openai":
            there["engines"] = ray.get(plan.host.num_engines.remote(plan.engine_key))
        self.run.write_stage_info(stage, {**info, "seconds": round(info.get("seconds", 0.0) + seconds, 2), **there})

    def _close_stage(self, stage: Stage, shards: list[InputShard]) -> list[InputShard]:
        """Check that the stage's ledger accounts for every row that came in; returns what goes on."""
        store, names = self.run.store(stage.name), [shard.name for shard in shards]
        accounted = store.ledger(names)
        expected: dict[str, int] = {}
        for shard in shards:
            for lang, count in shard.languages.items():
                expected[lang] = expected.get(lang, 0) + count
        found = {lang: ledger.num_in for lang, ledger in accounted.items() if ledger.num_in}
        if not balances(stage, expected, found):
            raise RuntimeError(f"stage {stage.name}: the ledger does not balance: {expected} rows came in, {found} are accounted for")
        failed = sum((ledger.failed for ledger in accounted.values()), Ledger().failed)
        if failed and failed.total() == sum(expected.values()):
            raise UserError(
                f"stage {stage.name}: all {failed.total():,} rows failed, most with: {failed.most_common(1)[0][0]}. "
                "Mend the cause, then run again with --retry-failed"
            )
        return [entry.as_input() for entry in store.all_sealed(names)]


def balances(stage: Stage, expected: Mapping[str, int], found: Mapping[str, int]) -> bool:
    """Whether all rows that came in are accounted for, in every language, or in all together where the stage itself sets `lang`."""
    return sum(found.values()) == sum(expected.values()) if "lang" in stage.adds.names else found == expected
