"""A naive interpreter of the two policy specifications: reads the documents anew for every question, resolves nothing
to identities, and shares no code with `policy/`. Slow, and meant to be read beside the specifications.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Party:
    """One side of a flow: a pod, a node ("host" is the pod's own, "remote-node" any other), or an address outside."""

    address: str
    kind: str = "pod"
    cluster: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Protocol and name → number."""
    service_account: str = "default"


@dataclass(frozen=True, slots=True)
class Oracle:
    """The policies of `cluster`."""

    cluster: str
    policies: tuple[Document, ...]
    default_local: bool = True

    def passes(self, source: Party, destination: Party, protocol: str, port: int) -> bool:
        """Whether a first packet from one to the other arrives."""
        leaves = self._judge("egress", source, destination, source, destination, protocol, port)
        return leaves and self._judge("ingress", destination, source, source, destination, protocol, port)

    def _judge(
        self, way: str, subject: Party, peer: Party, source: Party, destination: Party, protocol: str, port: int
    ) -> bool:
        if subject.kind != "pod" or subject.cluster != self.cluster:
            return True
        closed = allowed = denied = False
        for policy in self.policies:
            namespace = policy["metadata"].get("namespace", "")
            for spec in _specs(policy):
                if policy["kind"] == "NetworkPolicy":
                    if not self._selects_subject(spec.get("podSelector"), namespace, subject, plain=True):
                        continue
                    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
                    if way.title() not in types:
                        continue
                    closed = True
                    for rule in spec.get(way) or []:
                        if self._kubernetes_rule(rule, way, namespace, peer, destination, protocol, port):
                            allowed = True
                    continue
                if not self._selects_subject(spec.get("endpointSelector"), namespace, subject, plain=False):
                    continue
                rules, denials = spec.get(way) or [], spec.get(f"{way}Deny") or []
                if spec.get("enableDefaultDeny", {}).get(way, bool(rules or denials)):
                    closed = True
                args = (way, namespace, peer, destination, protocol, port)
                allowed = allowed or any(self._cilium_rule(rule, *args) for rule in rules)
                denied = denied or any(self._cilium_rule(rule, *args) for rule in denials)
        if denied:
            return False
        if way == "ingress" and peer.kind == "host":
            return True
        return allowed or not closed

    def _selects_subject(self, selector: Any, namespace: str, subject: Party, *, plain: bool) -> bool:
        if namespace and subject.namespace != namespace:
            return False
        return _matches(selector, _plain_labels(subject) if plain else _all_labels(subject))

    # Kubernetes

    def _kubernetes_rule(
        self, rule: Document, way: str, namespace: str, peer: Party, destination: Party, protocol: str, port: int
    ) -> bool:
        peers = rule.get("from" if way == "ingress" else "to") or []
        if peers and not any(self._kubernetes_peer(given, namespace, peer) for given in peers):
            return False
        ports = rule.get("ports") or []
        return not ports or any(_kubernetes_port(given, destination, protocol, port) for given in ports)

    def _kubernetes_peer(self, given: Document, namespace: str, peer: Party) -> bool:
        if "ipBlock" in given:
            return peer.kind == "world" and _in_block(given["ipBlock"], peer.address)
        if peer.kind != "pod":
            return False
        if "namespaceSelector" in given:
            names = {"kubernetes.io/metadata.name": peer.namespace}
            if not _matches(given["namespaceSelector"], {**peer.namespace_labels, **names}):
                return False
        elif peer.namespace != namespace:
            return False
        if self.default_local and peer.cluster != self.cluster and not _names_cluster(given.get("podSelector")):
            return False
        return _matches(given.get("podSelector"), _all_labels(peer))

    # Cilium

    def _cilium_rule(
        self, rule: Document, way: str, namespace: str, peer: Party, destination: Party, protocol: str, port: int
    ) -> bool:
        side = "from" if way == "ingress" else "to"
        checks: dict[str, Callable[[Any], bool]] = {
            f"{side}Endpoints": lambda given: self._cilium_endpoint(given, namespace, peer),
            f"{side}Entities": lambda given: self._entity(given, peer),
            f"{side}CIDR": lambda given: peer.kind == "world" and _in_block({"cidr": given}, peer.address),
            f"{side}CIDRSet": lambda given: peer.kind == "world" and _in_block(given, peer.address),
        }
        ports = [given for group in rule.get("toPorts") or [] for given in group["ports"]]
        types = [given for group in rule.get("icmps") or [] for given in group["fields"]]
        said = [name for name in checks if name in rule]
        if not said and not ports and not types:
            return False
        if said and not any(check(given) for name, check in checks.items() for given in rule.get(name) or []):
            return False
        if types:
            names = {"ICMP": "IPv4", "ICMPv6": "IPv6"}
            return any(t.get("family", "IPv4") == names.get(protocol) and t["type"] == port for t in types)
        return not ports or any(_cilium_port(given, destination, protocol, port) for given in ports)

    def _cilium_endpoint(self, selector: Document, namespace: str, peer: Party) -> bool:
        keys = _keys(selector)
        if any(key.startswith("reserved:") for key in keys):
            return _matches(selector, {f"reserved:{peer.kind}": ""})
        if peer.kind != "pod":
            return False
        by_namespace = any(key == NAMESPACE or key.startswith(NAMESPACE_LABELS) for key in keys)
        if namespace and not by_namespace and peer.namespace != namespace:
            return False
        if self.default_local and CLUSTER not in keys and peer.cluster != self.cluster:
            return False
        return _matches(selector, _all_labels(peer))

    def _entity(self, entity: str, peer: Party) -> bool:
        match entity:
            case "all":
                return True
            case "cluster":
                return peer.kind in ("host", "remote-node") or (peer.kind == "pod" and peer.cluster == self.cluster)
        return peer.kind == entity


CLUSTER = "io.cilium.k8s.policy.cluster"
NAMESPACE = "io.kubernetes.pod.namespace"
SERVICE_ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."


def _specs(policy: Document) -> list[Any]:
    return [*([policy["spec"]] if "spec" in policy else []), *policy.get("specs", [])]


def _plain_labels(party: Party) -> dict[str, str]:
    return dict(party.labels)


def _all_labels(party: Party) -> dict[str, str]:
    namespaces = {NAMESPACE_LABELS + key: value for key, value in party.namespace_labels.items()}
    own = {NAMESPACE: party.namespace, CLUSTER: party.cluster, SERVICE_ACCOUNT: party.service_account}
    return {**party.labels, **namespaces, **own}


def _bare(key: str) -> str:
    return key.removeprefix("k8s:").removeprefix("any:")


def _keys(selector: Any) -> list[str]:
    selector = selector or {}
    given = [*(selector.get("matchLabels") or {}), *(e["key"] for e in selector.get("matchExpressions") or [])]
    return [_bare(key) for key in given]


def _names_cluster(selector: Any) -> bool:
    return CLUSTER in _keys(selector)


def _matches(selector: Any, labels: Mapping[str, str]) -> bool:
    selector = selector or {}
    if any(labels.get(_bare(key)) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for expression in selector.get("matchExpressions") or []:
        key, values = _bare(expression["key"]), expression.get("values") or []
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds[expression["operator"]]:
            return False
    return True


def _in_block(block: Document, address: str) -> bool:
    return ip_address(address) in ip_network(block["cidr"]) and not any(
        ip_address(address) in ip_network(inner) for inner in block.get("except") or []
    )


def _kubernetes_port(given: Document, destination: Party, protocol: str, port: int) -> bool:
    if given.get("protocol", "TCP") != protocol:
        return False
    number = given.get("port")
    if number is None:
        return True
    if isinstance(number, str):
        return destination.ports.get((protocol, number)) == port
    return bool(number <= port <= given.get("endPort", number))


def _cilium_port(given: Document, destination: Party, protocol: str, port: int) -> bool:
    if protocol not in ("TCP", "UDP", "SCTP") or given.get("protocol", "ANY") not in ("ANY", protocol):
        return False
    number = str(given["port"])
    if not number.isdigit():
        return destination.ports.get((protocol, number)) == port
    return number == "0" or int(number) <= port <= (given.get("endPort") or int(number))
