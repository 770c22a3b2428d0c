"""Tell Ray that the cloud will take this machine away: on the clusters of `ray up` nobody else does.

A node that Ray knows to be leaving gets no more rows and finishes those it has, and a training saves itself in time. Worker nodes of
`cluster/aws.yaml` and `cluster/gcp.yaml` start it beside Ray:

    python -m xl.preemption aws

AWS says two minutes before (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html), Google half a
minute (https://cloud.google.com/compute/docs/instances/create-use-spot). On Kubernetes the pod's own end does the same. The metadata are
read from where AWS_EC2_METADATA_SERVICE_ENDPOINT and GCE_METADATA_HOST say, as the clouds' own libraries do.
"""

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

POLL_SECONDS = 5.0
"""AWS asks for this: a notice is not announced otherwise."""

GOOGLE_POLL_SECONDS = 1.0
"""Of half a minute little is to be lost."""

RETRY_SECONDS = 1.0
TIMEOUT_SECONDS = 2.0

AWS = "http://169.254.169.254"
GOOGLE = "metadata.google.internal"
GOOGLE_NOTICE_SECONDS = 30.0

_UNREADABLE = (OSError, ValueError, KeyError, http.client.HTTPException)
"""What comes of metadata that are not there for a moment, or are not what they should be."""


def aws_notice(base: str) -> float | None:
    """When AWS takes this machine, as seconds since the epoch; None while it does not want it.

    Raises OSError when its metadata cannot be read, and ValueError or KeyError when they are not as documented.
    """
    token = _read(f"{base}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
    try:
        action = json.loads(_read(f"{base}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token}))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return datetime.fromisoformat(action["time"]).timestamp()


def google_notice(base: str) -> float | None:
    """The same of Google's, which says that it takes the machine and not when."""
    is_preempted = _read(f"{base}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return time.time() + GOOGLE_NOTICE_SECONDS if is_preempted.strip() == "TRUE" else None


class RayNode(NamedTuple):
    """A node of a Ray cluster: the address of the cluster's control store (GCS), and the node's id in it."""

    address: str
    node_id: str


def this_node() -> RayNode:
    """The node that this machine is. Raises ConnectionError as long as no Ray runs here."""
    import ray

    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    try:
        context = ray.get_runtime_context()
        return RayNode(context.gcs_address, context.get_node_id())
    finally:
        ray.shutdown()


def drain(node: RayNode, deadline: float, reason: str) -> None:
    """Tell Ray that a node will be gone at a time, in seconds since the epoch. Raises RuntimeError when Ray does not accept it."""
    from ray.autoscaler.v2.sdk import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    preempted = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why_not = GcsClient(address=node.address).drain_node(node.node_id, preempted, reason, int(deadline * 1000))
    if not accepted:
        raise RuntimeError(f"Ray does not drain {node.node_id}: {why_not}")


def watch(notice: Callable[[], float | None], poll_seconds: float = POLL_SECONDS) -> float:
    """Wait until a notice comes; returns when the machine goes. What the cloud does not answer is asked again."""
    while True:
        try:
            deadline = notice()
        except _UNREADABLE as error:
            _tell(f"the cloud's metadata cannot be read: {error}")
            deadline = None
        if deadline is not None:
            return deadline
        time.sleep(poll_seconds)


def persistently(act: Callable[[], None], deadline: float, retry_seconds: float = RETRY_SECONDS) -> bool:
    """Do something that can fail, again until it succeeds or the deadline has passed; whether it succeeded."""
    while True:
        try:
            act()
            return True
        except Exception as error:  # Ray starts, or its head is away: whatever it is, the machine goes all the same
            _tell(f"{type(error).__name__}: {error}")
        if time.time() > deadline:
            return False
        time.sleep(retry_seconds)


def _tell(what: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _read(url: str, headers: dict[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        text: str = answer.read().decode()
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cloud", choices=("aws", "google"))
    if parser.parse_args().cloud == "aws":
        base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", AWS).rstrip("/")
        deadline = watch(lambda: aws_notice(base))
    else:
        base = f"http://{os.environ.get('GCE_METADATA_HOST', GOOGLE)}"
        deadline = watch(lambda: google_notice(base), GOOGLE_POLL_SECONDS)
    _tell(f"the cloud takes the machine in {deadline - time.time():.0f} s")
    if not persistently(lambda: drain(this_node(), deadline, "the cloud takes the machine"), deadline):
        sys.exit(1)


if __name__ == "__main__":
    main()
