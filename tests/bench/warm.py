"""Runs on one Ray with one warm engine, so that what is compared is the work and not the start."""

import contextlib
import json
import math
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from rich.console import Console

from tests.support import ROOT, german_pages, recipe
from xl import folder, runs
from xl.execute import parallel
from xl.methods import load_recipe, method_stages
from xl.pages.manifest import make_manifest
from xl.pages.read import list_files
from xl.pipeline import Engines
from xl.ray_session import ray_session
from xl.recipe import PageRecipe
from xl.records import PAGE_SCHEMA, Row
from xl.stage import Stage, passes
from xl.summary import shard_names
from xl.worker import FromManifest

WRITER: dict[str, Any] = {"model": "packaged/gemma-3-270m", "max_model_len": 1024, "max_num_seqs": 32}
"""Most of its instructions pass the checks, so that most rows are asked twice. (Those of SmolLM2 135M Instruct do not.)"""


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

    def end_engines(self) -> None:
        """Make room; the next run starts its engine again."""
        self._engines.close()


def rated_pairs(folder: Path, num_rows: int, first: int = 0) -> Path:
    """X-Instruction's recipe up to the stages of `RATED`; its pages are numbered from `first`."""
    pages = german_pages(folder / "pages", num_rows, first)
    return recipe(folder / "recipe.yaml", pages, models={"writer": WRITER}, rating={"rater": "prompted"})


def written_answers(folder: Path, num_rows: int, first: int = 0) -> Path:
    """XL-Instruct's recipe up to the stages of `WRITTEN`.

    Its pages are the same samples in turn, so that runs have the same to do, each begun with a number of its own from `first` on.
    """
    samples = [json.loads(line) for line in (ROOT / "jobs/samples/english.jsonl").read_text("utf-8").splitlines()]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "pages.jsonl", "w", encoding="utf-8") as file:
        for number in range(num_rows):
            text = f"Report number {first + number}.\n\n{samples[number % len(samples)]['text']}"
            page = {"url": f"https://a.example/{first + number}", "lang": "en", "text": text}
            file.write(json.dumps(page) + "\n")
    pages = {"from": str(folder / "pages.jsonl"), "lang": "lang"}
    steps = {"max_draft_chars": 400, "refine": {"max_answer_tokens": 96}, "score": False, "translate": False}
    return recipe(folder / "recipe.yaml", pages, method="xl_instruct", models={"writer": WRITER}, **steps)


class TwoAsks(NamedTuple):
    """Two stages that ask the same engine, and what writes a recipe with them: a folder, a number of rows, and that of the first."""

    stages: tuple[str, str]
    write: Callable[..., Path]


RATED = TwoAsks(("pairs", "rated"), rated_pairs)
"""X-Instruction's asks: the instruction, then one token whose log-probabilities say how good the pair is."""

WRITTEN = TwoAsks(("question", "refined"), written_answers)
"""XL-Instruct's first asks: the question, then the answer."""


def warm_up(runs: WarmRuns, folder: Path, asks: TwoAsks = RATED) -> None:
    """A few rows, so that the engine's start is nobody's time."""
    runs.stages(asks.write(folder / "warm-up", 16), folder / "warm-up" / "run", asks.stages)


def unique_rows(run: Path) -> list[Row]:
    """What a run's first ask was asked about."""
    opened = folder.open_run(run)
    return [row for shard in shard_names(opened) for row, _ in opened.store("unique").kept(shard)]


@contextlib.contextmanager
def warm_runs(num_threads: int | None = None) -> Iterator[WarmRuns]:
    """A Ray of our own and its engines, which compute with so many threads; by default with one a CPU.

    Ray runs its workers, and with them the engine, at a low priority; what they are compared with runs at the usual one.
    """
    with mock.patch.dict(os.environ, RAY_worker_niceness="0"), mock.patch.dict(WRITER, threads=num_threads), ray_session():
        runs = WarmRuns(Engines(Console(quiet=True)))
        yield runs
        runs.end_engines()


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
