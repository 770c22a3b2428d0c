"""What the pages of cluster/ say: the commands, the files that they name, and the prices."""

import re
from pathlib import Path

import pytest

from tests.commands import CHECKED, FILES, check, shell_commands
from tests.manifests import CLOUDS, CLUSTER, MARKET, load
from tests.support import ROOT

PAGES = sorted(CLUSTER.glob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_commands_name_are_there(path: Path) -> None:
    for command in shell_commands(path.read_text("utf-8")):
        for file in FILES.findall(command):
            assert any(ROOT.glob(file)), f"{command}: no {file}"


COMMANDS = dict.fromkeys(command for path in PAGES for command in shell_commands(path.read_text("utf-8")))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.split()[0] in CHECKED])
def test_every_command_of_the_pages_exists_with_its_options(command: str) -> None:
    check(command)


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_no_command_starts_a_recipe_on_pages_that_are_nowhere(path: Path) -> None:
    for command in shell_commands(path.read_text("utf-8")):
        for recipe in re.findall(r"jobs/recipes/\w+\.yaml", command):
            if "s3://my-bucket" in (ROOT / recipe).read_text("utf-8"):
                assert "--set pages.from=" in command, command


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_table_of_prices_is_of_the_clusters_machines(cloud: str) -> None:
    config, prices = load(CLUSTER / f"{cloud}.yaml"), load(CLUSTER / "prices.yaml")["regions"]
    text = (CLUSTER / f"{cloud.upper()}.md").read_text("utf-8")
    rows = {cells[0]: cells[1:] for line in text.splitlines() if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 5}
    for group, kind in config["available_node_types"].items():
        machine, most, *told = rows[group]
        named = kind["node_config"].get("InstanceType") or kind["node_config"]["machineType"]
        assert machine.split(",")[0] == named and int(most) == kind.get("max_workers", 1)
        price = prices[config["provider"]["region"]][named]
        is_spot = kind["labels"].get(MARKET) == "spot"
        assert told == (["", f"{price['spot']:.2f}"] if is_spot else [f"{price['on_demand']:.2f}", ""])
