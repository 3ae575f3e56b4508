"""What the reasons mean that the kernel's programs count by (datapath/bpf/drop.h), for people."""

from collections.abc import Mapping

MEANING: Mapping[str, str] = {
    "none": "allowed",
    "invalid": "the headers are cut short or contradict each other",
    "spoofed": "a pod sent to the mesh from an address that is not its own, or before its own was known",
    "no-tunnel": "the node has no tunnel device yet",
    "no-tunnel-key": "came by the tunnel device without tunnel metadata",
    "source-local": "came by the tunnel with a source address of this cluster",
    "identity-mismatch": "the sender's node calls it by another identity than its cluster does",
    "source-unverified": "no cluster has announced the sender yet, and a policy selects the receiver",
    "unverified": "no cluster has announced the sender yet; policy decides, without one it is delivered",
    "no-endpoint": "came by the tunnel for an address that is no pod of this node",
    "no-backend": "the service has no backend",
    "too-big": "larger than the way carries; the sender was told its size",
    "peer-withdrawn": "the cluster of the destination is dead or lost; the sender was told",
    "policy-denied": "a rule denies it",
    "policy-closed": "no rule allows it",
    "policy-audited": "policy would have dropped it; delivered, as the mode is audit",
    "event-suppressed": "not told one by one: too many in a moment",
    "unreachable": "nothing carries packets to the destination's node",
    "unknown-node": "came by the tunnel from an address that is no node's",
    "wrong-cluster": "came by the tunnel from a node of another cluster than the sender's",
    "policy-shut": "what the pod's policies say does not fit into a map, or is not known yet; see `meshd status`",
}
"""By the reason's label. A test holds it complete."""
