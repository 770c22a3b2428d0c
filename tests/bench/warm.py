"""Runs on one Ray with one warm engine, so that what is compared is the work and not the start."""

import contextlib
import json
import math
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from tests.support import german_pages, recipe
from xl import folder, runs
from xl.execute import parallel, ray_session
from xl.methods import load_recipe, method_stages
from xl.pages.manifest import make_manifest
from xl.pages.read import list_files
from xl.pipeline import Engines
from xl.recipe import PageRecipe
from xl.records import PAGE_SCHEMA
from xl.stage import Stage, passes
from xl.summary import shard_names
from xl.worker import FromManifest


@dataclass
class Measured:
    """What a piece of work took."""

    seconds: float
    output_tokens: int

    @property
    def tokens_per_second(self) -> float:
        return self.output_tokens / self.seconds


def barrier(stages: list[Stage]) -> list[tuple[Stage, ...]]:
    """Every stage in a pass of its own: no row begins the second ask before all rows have ended the first."""
    return [(stage,) for stage in stages]


class WarmRuns:
    """Runs that share a Ray session and its engines."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines

    def stages(self, path: Path, out: Path, measured: tuple[str, ...], fused: bool = True) -> Measured:
        """Run a recipe; time and output tokens of the stages `measured`. Reading, parsing and committing rows are counted."""
        recipe = load_recipe(path)
        models, trainings = runs.resolve_models(recipe, folder.RunFolder(out))
        stages = method_stages(recipe, models)
        stages = stages[: 1 + max(number for number, stage in enumerate(stages) if stage.name in measured)]
        run = folder.claim(out)
        assert isinstance(recipe, PageRecipe)
        job = runs.Job(recipe, run, runs.Options(), Console(quiet=True), models, trainings, stages, self._engines)
        runs._note(job)
        manifest = make_manifest(run.manifest, list_files(recipe.pages), recipe.pages, recipe.page_languages, None, parallel)
        with mock.patch("xl.pipeline.passes", passes if fused else barrier):
            job.pipeline().take(FromManifest(manifest), manifest.shards, PAGE_SCHEMA)
        names = shard_names(run)
        tokens = sum(output for stage in measured for _, output in run.store(stage).usage(names).values())
        return Measured(sum(run.stage_info(stage).get("seconds", 0.0) for stage in measured), tokens)


def two_asks(folder: Path, writer: dict[str, Any], num_rows: int, first: int = 0) -> Path:
    """A recipe whose `pairs` and `rated` are asks to the same engine; its pages are numbered from `first`."""
    pages = german_pages(folder / "pages", num_rows, first)
    return recipe(folder / "recipe.yaml", pages, models={"writer": writer}, rating={"rater": "prompted"})


def warm_up(runs: WarmRuns, folder: Path, writer: dict[str, Any]) -> None:
    """A few rows, so that the engine's start is nobody's time."""
    runs.stages(two_asks(folder / "warm-up", writer, 16), folder / "warm-up" / "run", ("pairs", "rated"))


@contextlib.contextmanager
def warm_runs() -> Iterator[WarmRuns]:
    """A Ray of our own and its engines.

    Ray runs its workers, and with them the engine, at a low priority; what they are compared with runs at the usual one.
    """
    with mock.patch.dict(os.environ, RAY_worker_niceness="0"), ray_session():
        engines = Engines(Console(quiet=True))
        yield WarmRuns(engines)
        engines.close()


def summary(ratios: list[float]) -> dict[str, Any]:
    """Median, extremes and a 95 % t interval of the mean ratio, on the logarithmic scale."""
    from scipy.stats import t

    result = {"ratios": ratios, "median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    if len(ratios) > 1:
        logs = [math.log(ratio) for ratio in ratios]
        half = t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
        result["interval"] = [math.exp(statistics.mean(logs) - half), math.exp(statistics.mean(logs) + half)]
    return result


def told(name: str, result: dict[str, Any]) -> str:
    """One line about a comparison."""
    interval = "; 95 % interval {:.3f} to {:.3f}".format(*result["interval"]) if "interval" in result else ""
    pairs = len(result["ratios"])
    return f"{name}: {result['median']:.3f} (median of {pairs} pairs, {result['least']:.3f} to {result['most']:.3f}{interval})"


def save(out: Path, name: str, result: dict[str, Any]) -> None:
    """Add a result to the JSON file."""
    before = json.loads(out.read_text("utf-8")) if out.exists() else {}
    out.write_text(json.dumps({**before, name: result, "environment": folder.environment()}, indent=1), "utf-8")
