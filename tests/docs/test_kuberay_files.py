"""KubeRay's manifests: what its schemas and its operator say of them, and what their pods may do, get and share."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest

from tests.commands import check
from tests.manifests import CLUSTER, KINDS, KUBERAY, kube_cluster, load, manifests, walk
from tests.support import ROOT

SCHEMAS = ROOT.parent / "shared" / "schemas"
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
    for cluster in clusters:  # the endpoint has keys and a port of its own, and reads no bucket
        for value in (value for value in walk(cluster) if isinstance(value, dict)):
            value.pop("serviceAccountName", None)
            if "image" in value:
                value.pop("env", None)
                value.pop("ports", None)
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


def test_pods_that_read_pages_have_the_service_account_that_the_page_lets_into_buckets() -> None:
    page = (CLUSTER / "KUBERNETES.md").read_text("utf-8")
    for name in ("raycluster", "rayjob"):
        accounts = {
            value.get("serviceAccountName") for value in walk(kube_cluster(name)) if isinstance(value, dict) and "containers" in value
        }
        assert accounts == {"xl-pods"}
    assert "kubectl create serviceaccount xl-pods" in page and "kubectl annotate serviceaccount xl-pods eks.amazonaws.com/role-arn=" in page
    assert "system:serviceaccount:xl:xl-pods" in page and "/ns/xl/sa/xl-pods" in page


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
