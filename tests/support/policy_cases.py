"""Random parties and policies, small enough that they meet often."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.support.policy_oracle import CLUSTER, NAMESPACE, NAMESPACE_LABELS, Party

NAMESPACES = {"a": {"env": "prod"}, "b": {"env": "test"}}
PORTS = (79, 80, 81, 127, 128, 1000, 1999, 65535)
FLOWS = [(protocol, port) for protocol in ("TCP", "UDP", "SCTP") for port in PORTS]
FLOWS += [("ICMP", 8), ("ICMP", 3), ("ICMP", 128), ("ICMPv6", 128), ("ICMPv6", 8)]
"""Protocols and ports, or types."""
NAMED: tuple[dict[tuple[str, str], int], ...] = ({}, {("TCP", "web"): 80}, {("TCP", "web"): 1000, ("UDP", "web"): 81})


def _pods() -> SearchStrategy[Party]:
    return st.builds(
        lambda cluster, namespace, labels, ports: Party(
            "10.0.0.1", "pod", cluster, namespace, labels, NAMESPACES[namespace], ports
        ),
        st.sampled_from(["cluster1", "cluster1", "cluster2"]),
        st.sampled_from(sorted(NAMESPACES)),
        st.dictionaries(st.sampled_from(["app", "role"]), st.sampled_from(["x", "y"])),
        st.sampled_from(NAMED),
    )


OTHERS = {
    "host": Party("172.18.1.11", "host"),
    "other": Party("172.18.1.12", "remote-node"),
    "inside": Party("192.0.2.1", "world"),
    "hole": Party("192.0.2.129", "world"),
    "far": Party("198.51.100.1", "world"),
}


def parties() -> SearchStrategy[dict[str, Party]]:
    pods = st.lists(_pods(), min_size=1, max_size=5)
    return pods.map(lambda found: {f"pod{i}": pod for i, pod in enumerate(found)} | OTHERS)


def _labels(keys: list[str]) -> SearchStrategy[dict[str, Any]]:
    key, value = st.sampled_from(keys), st.sampled_from(["x", "y"])
    with_values = st.builds(
        lambda k, o, v: {"key": k, "operator": o, "values": v},
        key,
        st.sampled_from(["In", "NotIn"]),
        st.lists(value, min_size=1, max_size=2),
    )
    without = st.builds(lambda k, o: {"key": k, "operator": o}, key, st.sampled_from(["Exists", "DoesNotExist"]))
    return st.fixed_dictionaries(
        {},
        optional={
            "matchLabels": st.dictionaries(key, value, max_size=1),
            "matchExpressions": st.lists(with_values | without, max_size=1),
        },
    )


_BLOCKS: SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]},
        {"cidr": "192.0.2.0/24"},
        {"cidr": "192.0.2.128/25"},
        {"cidr": "0.0.0.0/0", "except": ["198.51.100.0/24"]},
        {"cidr": "0.0.0.0/0"},
    ]
)
_KUBERNETES_PORTS: SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"port": 80},
        {"port": "web"},
        {"port": 79, "endPort": 128},
        {"protocol": "UDP"},
        {"port": "web", "protocol": "UDP"},
        {"port": 1000, "endPort": 65535, "protocol": "UDP"},
    ]
)
_CILIUM_PORTS: SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"port": "80"},
        {"port": "web"},
        {"port": "79", "endPort": 128, "protocol": "TCP"},
        {"port": "0", "protocol": "UDP"},
        {"port": "80", "endPort": 80, "protocol": "UDP"},
        {"port": "1000", "endPort": 65535},
        {"port": "1000", "endPort": 1999, "protocol": "SCTP"},
    ]
)


_ICMPS: SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"type": 8}, {"family": "IPv4", "type": 3}, {"family": "IPv6", "type": 128}]
)


def _kubernetes_rule(side: str) -> SearchStrategy[dict[str, Any]]:
    selectors = st.fixed_dictionaries({"podSelector": _labels(["app", "role"])}) | st.fixed_dictionaries(
        {"namespaceSelector": _labels(["env"])}, optional={"podSelector": _labels(["app"])}
    )
    block = _BLOCKS.map(lambda given: {"ipBlock": given})
    return st.fixed_dictionaries(
        {},
        optional={
            side: st.lists(selectors | block, max_size=2),
            "ports": st.lists(_KUBERNETES_PORTS, max_size=2),
        },
    )


def _kubernetes() -> SearchStrategy[dict[str, Any]]:
    spec = st.fixed_dictionaries(
        {"podSelector": _labels(["app", "role"])},
        optional={
            "policyTypes": st.lists(st.sampled_from(["Ingress", "Egress"]), max_size=2, unique=True),
            "ingress": st.lists(_kubernetes_rule("from"), max_size=2),
            "egress": st.lists(_kubernetes_rule("to"), min_size=1, max_size=2),
        },
    )
    return st.builds(
        lambda namespace, spec: {"kind": "NetworkPolicy", "metadata": {"namespace": namespace}, "spec": spec},
        st.sampled_from(sorted(NAMESPACES)),
        spec,
    )


_CLUSTERS: list[dict[str, Any]] = [
    {},
    {"matchLabels": {CLUSTER: "cluster2"}},
    {"matchExpressions": [{"key": CLUSTER, "operator": "Exists"}]},
    {"matchLabels": {NAMESPACE: "b"}},
    {"matchLabels": {f"k8s:{NAMESPACE_LABELS}env": "prod"}},
]


def _cilium_rule(side: str) -> SearchStrategy[dict[str, Any]]:
    endpoint = _labels(["app", "k8s:role"]) | st.sampled_from(_CLUSTERS)
    peers = st.one_of(
        st.just({}),
        st.lists(endpoint, max_size=2).map(lambda given: {f"{side}Endpoints": given}),
        st.sampled_from(["all", "world", "cluster", "host", "remote-node"]).map(
            lambda given: {f"{side}Entities": [given]}
        ),
        _BLOCKS.map(lambda given: {f"{side}CIDRSet": [given]}),
        st.just({f"{side}CIDR": ["192.0.2.0/25"]}),
    )
    none: SearchStrategy[dict[str, Any]] = st.just({})
    ports = none | st.lists(_CILIUM_PORTS, min_size=1, max_size=2).map(lambda p: {"toPorts": [{"ports": p}]})
    ports |= st.lists(_ICMPS, min_size=1, max_size=2).map(lambda types: {"icmps": [{"fields": types}]})
    return st.builds(lambda peers, ports: {**peers, **ports}, peers, ports)


def _cilium() -> SearchStrategy[dict[str, Any]]:
    def rules(side: str) -> SearchStrategy[list[dict[str, Any]]]:
        return st.lists(_cilium_rule(side), min_size=1, max_size=2)

    spec = st.fixed_dictionaries(
        {"endpointSelector": _labels(["app", "role"])},
        optional={
            "ingress": rules("from"),
            "ingressDeny": rules("from"),
            "egress": rules("to"),
            "egressDeny": rules("to"),
            "enableDefaultDeny": st.sampled_from([{"ingress": False}, {"egress": True}, {"egress": False}]),
        },
    )
    metadata = st.sampled_from([("CiliumNetworkPolicy", {"namespace": "a"}), ("CiliumClusterwideNetworkPolicy", {})])
    return st.builds(lambda kind, spec: {"kind": kind[0], "metadata": dict(kind[1]), "spec": spec}, metadata, spec)


def policies(most: int = 4) -> SearchStrategy[list[dict[str, Any]]]:
    def named(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**p, "metadata": {**p["metadata"], "name": f"p{i}"}} for i, p in enumerate(found)]

    return st.lists(_kubernetes() | _cilium(), max_size=most).map(named)
