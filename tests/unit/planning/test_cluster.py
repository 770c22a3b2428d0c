"""What is read of a cluster's file, and what is said of one that is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from xl.errors import UserError
from xl.planning.cluster import Cluster, engines_per_node, read_cluster
from xl.planning.prices import Prices, cost_of, hourly_prices, parse_prices, read_prices

RAY_UP: dict[str, Any] = {
    "cluster_name": "xl",
    "max_workers": 10,
    "idle_timeout_minutes": 3,
    "provider": {"type": "aws", "region": "us-east-1"},
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "labels": {"xl/pool": "head"}, "node_config": {"InstanceType": "m7i.2xlarge"}},
        "pages": {
            "resources": {"CPU": 32},
            "max_workers": 4,
            "labels": {"xl/pool": "pages"},
            "node_config": {"InstanceType": "m7i.8xlarge"},
        },
        "spot": {
            "resources": {"CPU": 48, "GPU": 4},
            "max_workers": 2,
            "priority": 10,
            "labels": {"xl/pool": "engines", "ray.io/market-type": "spot", "ray.io/accelerator-type": "L40S"},
            "node_config": {"InstanceType": "g6e.12xlarge"},
        },
        "on-demand": {
            "resources": {"CPU": 48, "GPU": 4},
            "min_workers": 1,
            "max_workers": 1,
            "labels": {"xl/pool": "engines"},
            "node_config": {"InstanceType": "g6e.12xlarge"},
        },
    },
}

KUBERAY: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayCluster",
    "spec": {
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},
            "template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "4", "memory": "16Gi"}}}]}},
        },
        "autoscalerOptions": {"idleTimeoutSeconds": 90},
        "workerGroupSpecs": [
            {
                "groupName": "pages",
                "minReplicas": 1,
                "maxReplicas": 5,
                "labels": {"xl/pool": "pages"},
                "template": {"spec": {"containers": [{"resources": {"requests": {"cpu": "15500m"}}}]}},
            },
            {
                "groupName": "engines",
                "maxReplicas": 8,
                "rayStartParams": {"labels": "xl/pool=engines,ray.io/accelerator-type=H100"},
                "template": {
                    "spec": {
                        "nodeSelector": {
                            "node.kubernetes.io/instance-type": "p5.48xlarge",
                            "topology.kubernetes.io/region": "us-east-1",
                            "karpenter.sh/capacity-type": "spot",
                        },
                        "containers": [{"resources": {"limits": {"cpu": 190, "nvidia.com/gpu": 8}}}],
                    }
                },
            },
        ],
    },
}

PRICES = {
    "looked_up": "2026-01-01",
    "source": "a test",
    "regions": {
        "us-east-1": {
            "m7i.2xlarge": {"on_demand": 0.4},
            "m7i.8xlarge": {"on_demand": 1.6},
            "g6e.12xlarge": {"on_demand": 10.0, "spot": 4.0},
        }
    },
}


def written(path: Path, data: Any) -> Path:
    path.write_text(yaml.safe_dump(data), "utf-8")
    return path


def changed(data: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a dotted key; None takes the key away."""
    copy: dict[str, Any] = yaml.safe_load(yaml.safe_dump(data))
    *parents, last = dotted.split(".")
    at: Any = copy
    for parent in parents:
        at = at[int(parent)] if parent.isdigit() else at[parent]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return copy


def by_name(cluster: Cluster) -> dict[str, Any]:
    return {group.name: group for group in cluster.groups}


def test_a_ray_up_file_says_its_groups(tmp_path: Path) -> None:
    cluster = read_cluster(written(tmp_path / "c.yaml", RAY_UP))
    groups = by_name(cluster)
    assert {name: (g.pool, g.num_cpus, g.num_gpus, g.min_nodes, g.max_nodes, g.is_spot) for name, g in groups.items()} == {
        "head": ("head", 0, 0, 1, 1, False),
        "pages": ("pages", 32, 0, 0, 4, False),
        "spot": ("engines", 48, 4, 0, 2, True),
        "on-demand": ("engines", 48, 4, 1, 1, False),
    }
    assert groups["spot"].instance_type == "g6e.12xlarge" and groups["spot"].region == "us-east-1"
    assert cluster.idle_seconds == 180
    assert [group.name for group in cluster.for_engines(4, 2, {})] == ["spot", "on-demand"]
    assert [group.name for group in cluster.for_engines(4, 2, {"ray.io/accelerator-type": "L40S"})] == ["spot"]
    assert cluster.for_engines(4, 8, {}) == []
    assert engines_per_node(groups["spot"], 4, 2) == 2 and engines_per_node(groups["spot"], 30, 1) == 1


def test_clouds_own_words_for_spot_are_understood(tmp_path: Path) -> None:
    plain = changed(RAY_UP, "available_node_types.spot.labels", {"xl/pool": "engines"})
    for config in ({"InstanceMarketOptions": {"MarketType": "spot"}}, {"scheduling": {"provisioningModel": "SPOT"}}):
        data = changed(plain, "available_node_types.spot.node_config", config)
        assert by_name(read_cluster(written(tmp_path / "c.yaml", data)))["spot"].is_spot


def test_an_accelerator_may_be_said_as_a_resource(tmp_path: Path) -> None:
    data = changed(RAY_UP, "available_node_types.on-demand.resources", {"CPU": 48, "GPU": 4, "accelerator_type:A100": 1})
    cluster = read_cluster(written(tmp_path / "c.yaml", data))
    assert [group.name for group in cluster.for_engines(4, 2, {"ray.io/accelerator-type": "A100"})] == ["on-demand"]


def test_the_clusters_of_this_project_are_read() -> None:
    from tests.support import ROOT

    for name in ("aws", "gcp"):
        cluster = read_cluster(ROOT / "cluster" / f"{name}.yaml")
        assert {group.pool for group in cluster.groups} == {"head", "pages", "engines"}
        prices, missing = hourly_prices(cluster, read_prices(ROOT / "cluster" / "prices.yaml"), Path("prices.yaml"))
        assert not missing and prices.keys() == by_name(cluster).keys()
    for path in sorted((ROOT / "cluster" / "kuberay").glob("ray*.yaml")):
        assert {group.pool for group in read_cluster(path).groups} == {"head", "pages", "engines"}, path


def test_a_kuberay_manifest_says_its_groups(tmp_path: Path) -> None:
    path = tmp_path / "ray.yaml"
    path.write_text(yaml.safe_dump_all([{"kind": "Secret"}, KUBERAY]), "utf-8")
    cluster = read_cluster(path)
    assert [(g.name, g.pool, g.num_cpus, g.num_gpus, g.min_nodes, g.max_nodes) for g in cluster.groups] == [
        ("head", "head", 0, 0, 1, 1),
        ("pages", "pages", 15.5, 0, 1, 5),
        ("engines", "engines", 190, 8, 0, 8),
    ]
    engines = by_name(cluster)["engines"]
    assert engines.is_spot and engines.instance_type == "p5.48xlarge" and engines.region == "us-east-1"
    assert engines.labels["ray.io/accelerator-type"] == "H100" and cluster.idle_seconds == 90


def test_a_ray_job_holds_a_cluster_too(tmp_path: Path) -> None:
    job = {"kind": "RayJob", "spec": {"rayClusterSpec": KUBERAY["spec"]}}
    assert len(read_cluster(written(tmp_path / "job.yaml", job)).groups) == 3


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"a": 1}, "holds neither `available_node_types`"),
        (changed(RAY_UP, "head_node_type", "chief"), "head_node_type: 'chief' is not among"),
        (changed(RAY_UP, "available_node_types.pages.resources.CPU", None), "available_node_types.pages.resources.CPU is missing"),
        (changed(RAY_UP, "available_node_types.pages.resources.CPU", "many"), "pages.resources.CPU: 'many' is not a number"),
        (changed(RAY_UP, "available_node_types.pages.max_workers", -1), "pages.max_workers: -1 is not a whole number"),
        (changed(RAY_UP, "available_node_types.pages.min_workers", 5), "pages.min_workers: 5 is more than the 4"),
        (changed(RAY_UP, "available_node_types.pages.labels", {"xl/pool": "gpu"}), "labels.xl/pool: 'gpu' is none of"),
        (changed(RAY_UP, "provider", None), "provider is missing"),
        (changed(KUBERAY, "spec.workerGroupSpecs.0.groupName", None), r"spec.workerGroupSpecs\[0\].groupName is missing"),
        (changed(KUBERAY, "spec.workerGroupSpecs.0.template.spec.containers.0.resources", {}), r"resources.limits.cpu is missing"),
        (changed(KUBERAY, "spec.workerGroupSpecs.0.template.spec.containers.0.resources.requests.cpu", "4 cores"), "'4 cores' is not a"),
        (changed(KUBERAY, "spec.headGroupSpec", None), "spec.headGroupSpec is missing"),
    ],
)
def test_a_wrong_file_is_told_in_one_line_with_its_key(tmp_path: Path, data: Any, told: str) -> None:
    path = written(tmp_path / "c.yaml", data)
    with pytest.raises(UserError, match=told) as error:
        read_cluster(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_no_yaml_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        read_cluster(tmp_path / "no.yaml")
    (tmp_path / "c.yaml").write_text("a: [", "utf-8")
    with pytest.raises(UserError, match="not valid YAML"):
        read_cluster(tmp_path / "c.yaml")


def test_nodes_cost_what_the_file_says_and_nothing_where_it_says_nothing(tmp_path: Path) -> None:
    cluster = read_cluster(written(tmp_path / "c.yaml", RAY_UP))
    path = written(tmp_path / "prices.yaml", PRICES)
    prices, missing = hourly_prices(cluster, read_prices(path), path)
    assert prices == {"head": 0.4, "pages": 1.6, "spot": 4.0, "on-demand": 10.0} and not missing
    assert cost_of({"head": 2.0, "spot": 3.0, "pages": 0.0}.items(), prices) == pytest.approx(12.8)
    prices, missing = hourly_prices(cluster, Prices.model_validate(without_spot()), path)
    (told,) = missing
    assert "spot" not in prices and told.startswith(f"node group spot: {path} has no price of g6e.12xlarge spot in us-east-1; --price")
    assert cost_of({"head": 2.0, "spot": 3.0}.items(), prices) is None
    assert cost_of({"head": 2.0, "spot": 0.0}.items(), prices) == pytest.approx(0.8)


def without_spot() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(yaml.safe_dump(PRICES))
    del data["regions"]["us-east-1"]["g6e.12xlarge"]["spot"]
    return data


def test_no_price_is_taken_from_another_region(tmp_path: Path) -> None:
    cluster = read_cluster(written(tmp_path / "c.yaml", changed(RAY_UP, "provider.region", "eu-west-1")))
    prices, missing = hourly_prices(cluster, Prices.model_validate(PRICES), Path("p.yaml"))
    assert prices == {} and len(missing) == 4


def test_groups_whose_machines_the_file_does_not_name_cost_what_is_said() -> None:
    from tests.support import ROOT

    cluster = read_cluster(ROOT / "cluster" / "kuberay" / "raycluster.yaml")
    prices, missing = hourly_prices(cluster, read_prices(ROOT / "cluster" / "prices.yaml"), Path("p.yaml"))
    assert not prices and len(missing) == 4
    assert "node group pages: the cluster's file names no instance type" in missing[1] and "--price pages=DOLLARS" in missing[1]
    said = parse_prices(["head=0.39", "pages=1.55", "engines-spot=2.59", "engines-on-demand=7"], cluster)
    assert hourly_prices(cluster, None, Path("p.yaml"), said) == (
        {"head": 0.39, "pages": 1.55, "engines-spot": 2.59, "engines-on-demand": 7.0},
        [],
    )


def test_what_is_said_goes_before_the_file(tmp_path: Path) -> None:
    cluster = read_cluster(written(tmp_path / "c.yaml", RAY_UP))
    prices, _ = hourly_prices(cluster, Prices.model_validate(PRICES), Path("p.yaml"), parse_prices(["spot=3.5"], cluster))
    assert prices == {"head": 0.4, "pages": 1.6, "spot": 3.5, "on-demand": 10.0}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gpu=1", "has no node group 'gpu', only head, on-demand, pages, spot"),
        ("pages", "GROUP=DOLLARS is wanted"),
        ("pages=-1", "GROUP=DOLLARS is wanted"),
        ("pages=nan", "GROUP=DOLLARS is wanted"),
    ],
)
def test_a_price_that_cannot_be_meant_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_prices([text], read_cluster(written(tmp_path / "c.yaml", RAY_UP)))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([1], "prices are a mapping"),
        ({"looked_up": "2026-01-01", "source": "y"}, "`regions` is missing"),
        ({**PRICES, "regions": {"r": {"t": {"on_demand": -1}}}}, "regions.r.t.on_demand"),
        ({**PRICES, "regions": {"r": {"t": {"ondemand": 1}}}}, "did you mean|unknown key"),
    ],
)
def test_a_wrong_file_of_prices_is_told(tmp_path: Path, data: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_prices(written(tmp_path / "prices.yaml", data))
