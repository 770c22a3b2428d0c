"""The files for `ray up`: what Ray's schema says of them, and whether they keep what AWS.md and GCP.md promise."""

import json
import re
import subprocess

import jsonschema
import pytest

from tests.commands import shell_commands
from tests.manifests import CLOUDS, CLUSTER, load, node_types


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_key_that_ray_does_not_know_is_found(cloud: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load(CLUSTER / f"{cloud}.yaml")
    config["available_node_types"]["pages"]["label"] = {}
    with pytest.raises(jsonschema.ValidationError, match="label"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_nodes_share_storage_want_a_token_and_report_nothing(cloud: str) -> None:
    config = load(CLUSTER / f"{cloud}.yaml")
    options = config["docker"]["run_options"]
    assert {"--env RAY_AUTH_MODE=token", "--env RAY_USAGE_STATS_ENABLED=0", "--volume /shared:/shared"} <= set(options)
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert any("mount -t nfs" in command for command in config["initialization_commands"])
    assert not any("initialization_commands" in kind for kind in config["available_node_types"].values())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_commands_are_shell_and_the_dashboard_listens_on_the_head_alone(cloud: str) -> None:
    config = load(CLUSTER / f"{cloud}.yaml")
    commands = [command for key, value in config.items() if key.endswith("_commands") for command in value]
    for command in commands:
        parsed = subprocess.run(["bash", "-n", "-c", f"({command})"], capture_output=True, text=True, check=False)
        assert parsed.returncode == 0, parsed.stderr
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in config["head_start_ray_commands"][-1]


def test_on_aws_only_port_22_is_open_and_to_one_address() -> None:
    config = load(CLUSTER / "aws.yaml")
    assert "security_group" not in config["provider"]  # Ray would add a rule for port 22 from everywhere
    assert all(kind["node_config"]["SecurityGroupIds"] == ["SECURITY_GROUP_ID"] for kind in config["available_node_types"].values())
    rules = [command for command in shell_commands((CLUSTER / "AWS.md").read_text("utf-8")) if "security-group-ingress" in command]
    inside, ssh = rules
    assert inside.endswith("--protocol all --source-group $GROUP")
    assert re.search(r"--protocol tcp --port 22 --cidr \S.*/32$", ssh)


def test_on_google_only_port_22_is_open_and_to_googles_proxy() -> None:
    config = load(CLUSTER / "gcp.yaml")
    assert config["provider"]["use_internal_ips"] and "start-iap-tunnel" in config["auth"]["ssh_proxy_command"]
    for kind in config["available_node_types"].values():
        assert [set(interface) for interface in kind["node_config"]["networkInterfaces"]] == [{"subnetwork"}]  # no address outside
        assert kind["node_config"]["tags"] == {"items": ["xl"]}
    rules = [command for command in shell_commands((CLUSTER / "GCP.md").read_text("utf-8")) if "firewall-rules create" in command]
    opened = {re.search(r"--allow=(\S+) --source-ranges=(\S+)", rule).groups() for rule in rules}  # type: ignore[union-attr]
    assert opened == {("all", "10.10.0.0/20"), ("tcp:22", "35.235.240.0/20")}  # its own subnet; what Google documents for its proxy


def test_the_head_on_aws_may_end_only_nodes_of_its_own_cluster() -> None:
    statements = json.loads((CLUSTER / "aws-head-policy.json").read_text("utf-8"))["Statement"]
    name = load(CLUSTER / "aws.yaml")["cluster_name"]
    ends = [statement for statement in statements if "ec2:TerminateInstances" in statement["Action"]]
    assert [statement["Condition"] for statement in ends] == [{"StringEquals": {"aws:ResourceTag/ray-cluster-name": name}}]
    assert not any("*" in action for statement in statements for action in statement["Action"])
    roles = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in node_types("aws").values()}
    assert roles == {"xl-head", "xl-node"}
