"""Commands in documents: read out of them, and held against the programs and files that they name."""

import functools
import itertools
import re
import shlex
import subprocess
import sys
from typing import Any

import typer

from tests.support import ROOT
from xl.cli import app
from xl.methods import load_recipe
from xl.recipe import parse_override

CHECKED = ("make", "python", "ray", "xl")
FILES = re.compile(r"\b(?:cluster|jobs|serve|tests)/[\w./*-]*\w")


def shell_commands(text: str) -> list[str]:
    """The commands of a document's `sh` blocks, each once and on one line."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = (line for block in blocks for line in block.replace("\\\n", " ").splitlines())
    return list(dict.fromkeys(command for line in lines if (command := re.sub(r"(^|\s)#.*", "", line).strip())))


def check(command: str) -> None:
    """Fail unless program, subcommand, options, keys of recipes and the files of this repository are there."""
    for file in FILES.findall(command):
        assert any(ROOT.glob(file)), f"no file {file}"
    words, _, nested = command.partition(" -- ")
    _check_program(shlex.split(words))
    if nested:
        check(nested.strip())


def _check_program(words: list[str]) -> None:
    program, *rest = words
    options = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert program in CHECKED, f"nothing is known of {program}"
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text("utf-8"), re.M), f"no target {rest[0]}"
    elif program == "python":
        assert options <= _options_of_script(rest[0]), f"python {rest[0]} lacks some of {sorted(options)}"
    else:
        known = _options_of_command(typer.main.get_command(app) if program == "xl" else _ray(), rest)
        assert options <= known, f"{program}: {sorted(options - known)}"
    if "--set" in rest:
        load_recipe(ROOT / rest[1], dict(parse_override(value) for option, value in itertools.pairwise(rest) if option == "--set"))


def _ray() -> Any:
    from ray.scripts.scripts import cli

    return cli


def _options_of_command(command: Any, words: list[str]) -> set[str]:
    """Options of the command that the first words lead to. Typer has a Click of its own, so its groups are none of Click's."""
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, f"{command.name} has no command {word}"
        command = command.commands[word]
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@functools.cache
def _options_of_script(script: str) -> set[str]:
    asked = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(re.findall(r"--[a-z][a-z-]*", asked.stdout))
