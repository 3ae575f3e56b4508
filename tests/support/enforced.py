"""Puts a policy into force for a pod of two nodes, as the daemon does."""

from functools import partial

from datapath import entries
from datapath.enforcement import enforce, relax
from datapath.entries import Entry
from datapath.policing import policy_entry, subject_entry
from datapath.policylayout import Iface
from policy.ports import EVERYTHING, Block
from tests.support.twonodes import Node, Pod

INGRESS, EGRESS = 0, 1
_revision = iter(range(1, 1 << 30))


def allow(pod: Pod, direction: int, peer: int, block: Block = EVERYTHING) -> Entry:
    return policy_entry(pod.identity, direction, peer, *block, allowed=True)


def police(
    node: Node, pod: Pod, *items: Entry, closed: tuple[int, ...] = (INGRESS, EGRESS), audit: bool = False
) -> None:
    """Exactly these entries hold for the pod from now on."""
    wanted = {entry.key for entry in items}
    gone = [key for key in node.maps.dump("md_policy") if key[4:8] == pod.identity.to_bytes(4, "little")]
    node.write(*items)
    node.maps.delete("md_policy", [key for key in gone if key not in wanted])
    node.write(subject_entry(pod.identity, revision=next(_revision), closed=closed, audit=audit))
    _mark(node, pod, policed=True)


def release(node: Node, pod: Pod) -> None:
    """No policy holds for the pod any more."""
    node.maps.delete("md_subject", [pod.identity.to_bytes(4, "little")])
    _mark(node, pod, policed=False)


def _mark(node: Node, pod: Pod, *, policed: bool) -> None:
    for address in (pod.v4, pod.v6):
        found = node.interface(address)
        key = found.ifindex.to_bytes(4, "little")
        if policed:
            node.write(Entry("md_iface", key, bytes(Iface(pod.identity))))
            node.namespace.call(partial(enforce, found.ifindex, node.loaded.programs))
        node.write(
            entries.endpoint_entry(
                address,
                ifindex=found.ifindex,
                mac=found.mac,
                host_mac=found.host_mac,
                identity=pod.identity,
                policed=policed,
            )
        )
        if not policed:
            node.namespace.call(partial(relax, found.ifindex, node.loaded.programs))
            node.maps.delete("md_iface", [key])
