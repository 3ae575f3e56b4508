"""What a policy means for this node → entries of the policy maps. Pure."""

import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from datapath.entries import Entry, IPNetwork
from datapath.layout import CidrKey
from datapath.policylayout import Outside, PolicyEntry, PolicyKey, Subject, SubjectFlag, VerdictCode

#: Order of publication, the reverse to remove: an entry stands before what puts it into force.
POLICY_RANK: Mapping[str, int] = MappingProxyType({"md_policy": 0, "md_subject": 1, "md_outside": 2})

_PEER_BITS = 32 + 32 + 8  # subject, peer, direction


def policy_entry(
    subject: int, direction: int, peer: int, protocol: int, port: int, length: int, *, allowed: bool
) -> Entry:
    """`length` counts the leading bits that matter of protocol (8) and port (16); `peer` 0 is anybody."""
    key = PolicyKey(_PEER_BITS + length, subject, peer, direction, protocol, port)
    verdict = VerdictCode.ALLOW if allowed else VerdictCode.DENY
    return Entry("md_policy", bytes(key), bytes(PolicyEntry(verdict)))


def subject_entry(
    identity: int, *, revision: int, closed: Iterable[int], audit: bool, shut: Iterable[int] = ()
) -> Entry:
    """Pods of this node with `identity` are judged. `closed`: directions, 0 ingress, 1 egress, in which only what an
    entry allows passes; `shut`: those in which nothing does, as entries are missing.
    """
    flags = SubjectFlag.AUDIT if audit else SubjectFlag(0)
    for direction in closed:
        flags |= SubjectFlag.CLOSED_EGRESS if direction else SubjectFlag.CLOSED_INGRESS
    for direction in shut:
        flags |= SubjectFlag.SHUT_EGRESS if direction else SubjectFlag.SHUT_INGRESS
    return Entry("md_subject", identity.to_bytes(4, sys.byteorder), bytes(Subject(revision, flags)))


def outside_entry(prefix: IPNetwork, identity: int) -> Entry:
    """Addresses of `prefix` that no cluster announced are judged as this identity."""
    word = (CidrKey._fields_[3][1]).from_buffer_copy(prefix.network_address.packed.ljust(16, b"\0"))
    key = CidrKey(prefixlen=32 + prefix.prefixlen, family=prefix.version, word=word)
    return Entry("md_outside", bytes(key), bytes(Outside(identity)))
