"""Who gets into a cluster: no file holds a secret, no service opens to the outside, and pods talk only where they must."""

import re
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.manifests import CLUSTER, KINDS, kube_cluster, manifests, walk


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
        if path.is_file() and path.suffix != ".pyc" and not path.name.startswith("requirements"):
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


METADATA = "169.254.169.254"


@pytest.mark.parametrize(
    ("address", "port", "is_open"),
    [
        ("192.0.2.1", 443, True),  # buckets, the model hub
        ("192.0.2.1", 80, False),
        ("192.0.2.1", 53, True),
        ("10.0.0.2", 2049, True),  # NFS
        ("10.0.0.2", 22, False),
        ("169.254.170.23", 80, True),  # the agent of EKS Pod Identity
        (METADATA, 80, False),  # the rights of the node
        (METADATA, 443, False),
    ],
)
def test_the_network_lets_ray_nodes_out_to_storage_and_names_but_not_to_the_clouds_metadata(address: str, port: int, is_open: bool) -> None:
    assert is_let_out("ray-nodes", address, port) == is_open


def test_googles_metadata_is_open_in_a_file_of_its_own() -> None:
    assert is_let_out("ray-nodes-gke-identity", METADATA, 80) and is_let_out("ray-nodes-gke-identity", "169.254.169.252", 988)
    assert not is_let_out("ray-nodes-gke-identity", "169.254.170.23", 80) and not is_let_out("ray-nodes-gke-identity", "192.0.2.1", 80)


def is_let_out(policy: str, address: str, port: int) -> bool:
    """Whether a policy lets Ray nodes reach a port of an address that is no pod's."""
    spec = next(document["spec"] for _, document in manifests() if document["metadata"]["name"] == policy)
    assert spec["podSelector"] == {"matchLabels": NODE}

    def holds(block: dict[str, Any]) -> bool:
        inside = [ip_address(address) in ip_network(cidr) for cidr in (block["cidr"], *block.get("except", []))]
        return inside[0] and not any(inside[1:])

    return any(
        port in {each["port"] for each in rule["ports"]}
        and any(holds(peer["ipBlock"]) for peer in rule.get("to", [{"ipBlock": {"cidr": "0.0.0.0/0"}}]))
        for rule in spec["egress"]
        if "ports" in rule
    )
