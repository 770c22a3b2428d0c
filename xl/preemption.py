"""Tell Ray that the cloud will take this machine away: on the clusters of `ray up` nobody else does.

A node that Ray knows to be leaving gets no more rows and finishes those it has, and a training saves itself in time. Worker nodes of
`cluster/aws.yaml` and `cluster/gcp.yaml` start it beside Ray:

    python -m xl.preemption aws

AWS says two minutes before (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html), Google half a
minute (https://cloud.google.com/compute/docs/instances/create-use-spot). On Kubernetes the pod's own end does the same.
"""

import argparse
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime

POLL_SECONDS = 5.0
"""AWS asks for this: a notice is not announced otherwise."""

TIMEOUT_SECONDS = 2.0

AWS = "http://169.254.169.254"
GOOGLE = "http://metadata.google.internal"
GOOGLE_NOTICE_SECONDS = 30.0


def aws_notice(base: str = AWS) -> float | None:
    """Seconds until AWS takes this machine; None while it does not want it. Raises OSError when its metadata cannot be read."""
    token = _read(f"{base}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
    try:
        action = json.loads(_read(f"{base}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token}))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return max(0.0, (datetime.fromisoformat(action["time"]) - datetime.now(UTC)).total_seconds())


def google_notice(base: str = GOOGLE) -> float | None:
    """The same of Google's."""
    is_preempted = _read(f"{base}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return GOOGLE_NOTICE_SECONDS if is_preempted.strip() == "TRUE" else None


CLOUDS: dict[str, Callable[[], float | None]] = {"aws": aws_notice, "google": google_notice}


def drain(address: str, node_id: str, notice_seconds: float, reason: str) -> None:
    """Tell the Ray at `address` that a node will be gone in so many seconds. Raises RuntimeError when Ray does not accept it."""
    from ray.autoscaler.v2.sdk import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    preempted = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + notice_seconds) * 1000)
    accepted, why_not = GcsClient(address=address).drain_node(node_id, preempted, reason, deadline_ms)
    if not accepted:
        raise RuntimeError(f"Ray does not drain {node_id}: {why_not}")


def watch(notice: Callable[[], float | None], leave: Callable[[float], None], poll_seconds: float = POLL_SECONDS) -> None:
    """Wait until a notice comes, and call `leave` with the seconds that are left. What the cloud does not answer is asked again."""
    while True:
        try:
            seconds = notice()
        except OSError:
            seconds = None
        if seconds is not None:
            leave(seconds)
            return
        time.sleep(poll_seconds)


def _drain_this_node(seconds: float) -> None:
    import ray

    ray.init(address="auto", log_to_driver=False)
    context = ray.get_runtime_context()
    drain(context.gcs_address, context.get_node_id(), seconds, "the cloud takes the machine")


def _read(url: str, headers: dict[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        text: str = answer.read().decode()
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cloud", choices=CLOUDS)
    watch(CLOUDS[parser.parse_args().cloud], _drain_this_node)


if __name__ == "__main__":
    main()
