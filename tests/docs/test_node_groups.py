"""The groups of nodes: their labels, and what Ray's autoscaler makes of them."""

import copy

import pytest

from tests.manifests import CLOUDS, KINDS, MARKET, autoscaling, node_types
from xl.placement import ACCELERATOR, POOL

NAMES = ["aws", "gcp", *KINDS]


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
