"""The policy engine over the parties of a script or of a random case: each gets an identity, as in a mesh."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from identity.labels import identity_labels
from identity.numbering import Reserved, identity_range
from policy.engine import Engine, EntryKey
from policy.model import Direction, PolicyKind, PolicyRef
from policy.parsing import parse_policy
from policy.ports import PROTOCOLS, enclosing
from policy.ports import Block as PortBlock
from policy.rulebook import ANYBODY
from policy.scope import Scope
from policy.selector import Labels, pod_labels
from tests.support.policy_oracle import Party

CLUSTER_IDS = {"cluster1": 1, "cluster2": 2, "cluster3": 3}


def ref_of(document: Mapping[str, Any]) -> PolicyRef:
    metadata = document["metadata"]
    return PolicyRef(PolicyKind(document["kind"]), metadata.get("namespace", ""), metadata["name"])


def labels_of(party: Party) -> Labels:
    return pod_labels(
        identity_labels(
            pod_labels=party.labels,
            namespace=party.namespace,
            namespace_labels=party.namespace_labels,
            service_account=party.service_account,
            cluster=party.cluster,
        )
    )


@dataclass(slots=True)
class Model:
    """`identities` by the party's name."""

    engine: Engine
    parties: Mapping[str, Party]
    identities: dict[str, int]
    local: str

    def identity(self, name: str) -> int:
        party = self.parties[name]
        if party.kind != "world":
            return self.identities[name]
        numbers = self.engine.cidrs.numbers
        around = [n for n in numbers if ip_address(party.address) in n]
        return numbers[max(around, key=lambda n: n.prefixlen)] if around else int(Reserved.WORLD)

    def passes(self, source: str, destination: str, protocol: int, port: int) -> bool:
        """By the compiled entries alone, looked up as the datapath does."""
        table = self.engine.table()
        leaves = self._looked_up(table, source, Direction.EGRESS, destination, protocol, port)
        return leaves and self._looked_up(table, destination, Direction.INGRESS, source, protocol, port)

    def _looked_up(
        self, table: Mapping[EntryKey, bool], subject: str, way: Direction, peer: str, protocol: int, port: int
    ) -> bool:
        party = self.parties[subject]
        if party.kind != "pod" or party.cluster != self.local:
            return True
        number = self.identities[subject]
        book = self.engine.rulebook_of_present(number)
        if book is None:
            return True
        around = list(enclosing(PortBlock(protocol, port, 24)))
        heard = []
        for identity in (self.identity(peer), ANYBODY):
            found = [table[key] for block in around if (key := EntryKey(number, way, identity, block)) in table]
            heard += found[-1:]  # the longest
        if False in heard:
            return False
        return True in heard or way not in book.closed


def build(
    parties: Mapping[str, Party],
    policies: Iterable[Mapping[str, Any]],
    *,
    cluster: str = "cluster1",
    default_local: bool = True,
) -> Model:
    """Everybody first, then the policies."""
    model = Model(Engine(), parties, {}, cluster)
    for name, party in parties.items():
        join(model, name, party)
    for document in policies:
        ref = ref_of(document)
        model.engine.set_policy(ref, parse_policy(ref, document, Scope(cluster, default_local)))
    model.engine.compute()
    return model


def join(model: Model, name: str, party: Party) -> None:
    if party.kind in ("host", "remote-node"):
        model.identities[name] = int(Reserved.HOST if party.kind == "host" else Reserved.REMOTE_NODE)
    if party.kind != "pod":
        return
    taken = set(model.identities.values())
    number = next(i for i in identity_range(CLUSTER_IDS[party.cluster]) if i not in taken)
    model.identities[name] = number
    model.engine.set_identity(number, labels_of(party))
    model.engine.set_named_ports(
        number, {(PROTOCOLS[protocol], port): {value} for (protocol, port), value in party.ports.items()}
    )
    model.engine.set_present(number, party.cluster == model.local)


def networks_of(model: Model) -> list[str]:
    return [str(ip_network(network)) for network in model.engine.cidrs.numbers]
