"""The ctypes twin of bpf/layout.h and bpf/drop.h, and the list of maps.

The C headers are the truth. That this twin equals them is proved by a unit test (a C program prints every size
and offset), when the programs are loaded (bcc's types) and when a pinned map is used again (the kernel's figures).
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from types import MappingProxyType

LAYOUT_VERSION = 1
IDENTITY_BITS = 24

_u8 = ctypes.c_uint8
_u16 = ctypes.c_uint16
_u32 = ctypes.c_uint32
_u64 = ctypes.c_uint64
_be16 = _u16.__ctype_be__
_v4 = _u8 * 4  # an address as its packed bytes, which are in network order
_v6 = _u8 * 16  # the same, or four zero-padded IPv4 bytes where both families share a map
_mac = _u8 * 6


class Family(IntEnum):
    V4 = 4
    V6 = 6


class PeerFlag(IntFlag):
    REMOTE = 1
    TUNNEL4 = 2
    TUNNEL6 = 4
    UNREACHABLE = 8


class SvcFlag(IntFlag):
    AFFINITY = 1
    MAGLEV = 2
    WEIGHTED = 4


class ClientKind(IntEnum):
    NETNS = 1
    ADDRESS = 2


class NatDirection(IntEnum):
    FORWARD = 0
    REPLY = 1


class EndpointFlag(IntFlag):
    POLICED = 1


class SubjectFlag(IntFlag):
    CLOSED_INGRESS = 1
    CLOSED_EGRESS = 2
    AUDIT = 4


class VerdictCode(IntEnum):
    NONE = 0
    ALLOW = 1
    DENY = 2


class NodeFlag(IntFlag):
    TUNNEL = 1
    DIRECT4 = 2
    DIRECT6 = 4
    REMOTE = 8
    HERE = 16


class DropReason(IntEnum):
    """Why something was dropped. Those of NOT_DROPS are counted, but what they count passes."""

    NONE = 0
    INVALID = 1
    SPOOFED = 2
    NO_TUNNEL = 3
    NO_TUNNEL_KEY = 4
    SOURCE_LOCAL = 5
    IDENTITY_MISMATCH = 6
    SOURCE_UNVERIFIED = 7
    NO_ENDPOINT = 8
    NO_BACKEND = 9
    TOO_BIG = 10
    PEER_WITHDRAWN = 11
    POLICY_DENIED = 12
    POLICY_CLOSED = 13
    POLICY_AUDITED = 14
    EVENT_SUPPRESSED = 15
    UNREACHABLE = 16
    UNKNOWN_NODE = 17
    WRONG_CLUSTER = 18

    @property
    def label(self) -> str:
        """The reason as people read it: `no-endpoint`."""
        return self.name.lower().replace("_", "-")


NOT_DROPS = frozenset({DropReason.SOURCE_UNVERIFIED, DropReason.POLICY_AUDITED, DropReason.EVENT_SUPPRESSED})


class AddrKey(ctypes.Structure):
    _fields_ = (("family", _u8), ("pad", _u8 * 3), ("word", _v6))


class CidrKey(ctypes.Structure):
    _fields_ = (("prefixlen", _u32), ("family", _u8), ("pad", _u8 * 3), ("word", _v6))


class Peer(ctypes.Structure):
    _fields_ = (("identity", _u32), ("flags", _u32), ("tunnel", _v6))


class Node(ctypes.Structure):
    _fields_ = (
        ("cluster_id", _u32),
        ("flags", _u32),
        ("tunnel_ifindex", _u32),
        ("direct_ifindex", _u32),
        ("tunnel_mtu", _u16),
        ("direct_mtu", _u16),
        ("hop4", _v4),
        ("hop6", _v6),
    )


class ReplyKey(ctypes.Structure):
    _fields_ = (("pod", AddrKey), ("node", AddrKey))


class Endpoint(ctypes.Structure):
    _fields_ = (("ifindex", _u32), ("identity", _u32), ("mac", _mac), ("host_mac", _mac), ("flags", _u32))


class Svc4Key(ctypes.Structure):
    _fields_ = (
        ("address", _v4),
        ("port", _be16),
        ("slot", _u16),
        ("protocol", _u8),
        ("scope", _u8),
        ("pad", _u8 * 2),
    )


class Svc6Key(ctypes.Structure):
    _fields_ = (
        ("address", _v6),
        ("port", _be16),
        ("slot", _u16),
        ("protocol", _u8),
        ("scope", _u8),
        ("pad", _u8 * 2),
    )


class Svc(ctypes.Structure):
    _fields_ = (("backend", _u32), ("count", _u16), ("flags", _u16))


class FrontKey(ctypes.Structure):
    _fields_ = (("address", _v6), ("port", _be16), ("protocol", _u8), ("family", _u8))


class AffmKey(ctypes.Structure):
    _fields_ = (*FrontKey._fields_, ("backend", _u32))


class AffKey(ctypes.Structure):
    _fields_ = (("client", _v6), *FrontKey._fields_, ("kind", _u8), ("pad", _u8 * 3))


class Aff(ctypes.Structure):
    _fields_ = (("used_ns", _u64), ("backend", _u32), ("pad", _u32))


class NatKey(ctypes.Structure):
    _fields_ = (
        ("source", _v6),
        ("destination", _v6),
        ("source_port", _be16),
        ("destination_port", _be16),
        ("protocol", _u8),
        ("family", _u8),
        ("direction", _u8),
        ("pad", _u8),
    )


class Nat(ctypes.Structure):
    _fields_ = (("address", _v6), ("port", _be16), ("pad", _u8 * 2), ("backend", _u32))


class Be4(ctypes.Structure):
    _fields_ = (("address", _v4), ("port", _be16), ("protocol", _u8), ("flags", _u8))


class Be6(ctypes.Structure):
    _fields_ = (("address", _v6), ("port", _be16), ("protocol", _u8), ("flags", _u8))


class Rev4Key(ctypes.Structure):
    _fields_ = (("cookie", _u64), ("address", _v4), ("port", _be16), ("pad", _u8 * 2))


class Rev4(ctypes.Structure):
    _fields_ = (("address", _v4), ("port", _be16), ("pad", _u8 * 2))


class Rev6Key(ctypes.Structure):
    _fields_ = (("cookie", _u64), ("address", _v6), ("port", _be16), ("pad", _u8 * 6))


class Rev6(ctypes.Structure):
    _fields_ = (("address", _v6), ("port", _be16), ("pad", _u8 * 2))


class Iface(ctypes.Structure):
    _fields_ = (("identity", _u32),)


class Subject(ctypes.Structure):
    _fields_ = (("revision", _u64), ("flags", _u32), ("pad", _u32))


class PolicyKey(ctypes.Structure):
    _fields_ = (
        ("prefixlen", _u32),
        ("subject", _u32),
        ("peer", _u32),
        ("direction", _u8),
        ("protocol", _u8),
        ("port", _be16),
    )


class PolicyEntry(ctypes.Structure):
    _fields_ = (("verdict", _u32),)


class Outside(ctypes.Structure):
    _fields_ = (("identity", _u32),)


class Ct4Key(ctypes.Structure):
    _fields_ = (
        ("source", _v4),
        ("destination", _v4),
        ("source_port", _be16),
        ("destination_port", _be16),
        ("ifindex", _u32),
        ("protocol", _u8),
        ("pad", _u8 * 3),
    )


class Ct6Key(ctypes.Structure):
    _fields_ = (
        ("source", _v6),
        ("destination", _v6),
        ("source_port", _be16),
        ("destination_port", _be16),
        ("ifindex", _u32),
        ("protocol", _u8),
        ("pad", _u8 * 3),
    )


class Ct(ctypes.Structure):
    _fields_ = (("revision", _u64), ("seen_s", _u32), ("flags", _u32))


class Event(ctypes.Structure):
    _fields_ = (
        ("time_ns", _u64),
        ("reason", _u32),
        ("ifindex", _u32),
        ("subject", _u32),
        ("peer", _u32),
        ("source", _v6),
        ("destination", _v6),
        ("source_port", _be16),
        ("destination_port", _be16),
        ("family", _u8),
        ("protocol", _u8),
        ("direction", _u8),
        ("pad", _u8),
        ("length", _u32),
        ("pad2", _u32),
    )


class Limit(ctypes.Structure):
    _fields_ = (("window", _u64), ("sent", _u64))


class Counter(ctypes.Structure):
    _fields_ = (("packets", _u64), ("bytes", _u64))


class Cfg(ctypes.Structure):
    _fields_ = (("tunnel_ifindex", _u32), ("inner_mtu4", _u16), ("inner_mtu6", _u16), ("node_netns", _u64))


# C name of every struct and its twin.
STRUCTS: Mapping[str, type[ctypes.Structure]] = MappingProxyType(
    {
        "addr_key": AddrKey,
        "cidr_key": CidrKey,
        "peer": Peer,
        "node": Node,
        "reply_key": ReplyKey,
        "endpoint": Endpoint,
        "svc4_key": Svc4Key,
        "svc6_key": Svc6Key,
        "svc": Svc,
        "be4": Be4,
        "be6": Be6,
        "front_key": FrontKey,
        "affm_key": AffmKey,
        "aff_key": AffKey,
        "aff": Aff,
        "nat_key": NatKey,
        "nat": Nat,
        "rev4_key": Rev4Key,
        "rev4": Rev4,
        "rev6_key": Rev6Key,
        "rev6": Rev6,
        "iface": Iface,
        "subject": Subject,
        "policy_key": PolicyKey,
        "policy_entry": PolicyEntry,
        "outside": Outside,
        "ct4_key": Ct4Key,
        "ct6_key": Ct6Key,
        "ct": Ct,
        "event": Event,
        "limit": Limit,
        "counter": Counter,
        "cfg": Cfg,
    }
)


class MapType(IntEnum):
    """The kernel's numbers (enum bpf_map_type)."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    HASH_OF_MAPS = 13


@dataclass(frozen=True, slots=True)
class MapSpec:
    """One map of bpf/maps.h; `size` is its default number of entries."""

    kind: MapType
    key: type[ctypes.Structure | ctypes.c_uint32]
    value: type[ctypes.Structure | ctypes.c_uint32]
    size: int

    @property
    def key_size(self) -> int:
        return ctypes.sizeof(self.key)

    @property
    def value_size(self) -> int:
        return ctypes.sizeof(self.value)


MAGLEV_PATTERN = "md_maglev_in"
"""The map that those in md_maglev are like: its value is a whole table, whose size is chosen when it is loaded."""

MAPS: Mapping[str, MapSpec] = MappingProxyType(
    {
        "md_ipcache": MapSpec(MapType.HASH, AddrKey, Peer, 524_288),
        "md_cidrs": MapSpec(MapType.LPM_TRIE, CidrKey, Peer, 65_536),
        "md_node": MapSpec(MapType.HASH, AddrKey, Node, 131_072),
        "md_replies": MapSpec(MapType.LRU_HASH, ReplyKey, Peer, 16_384),
        "md_endpoint": MapSpec(MapType.HASH, AddrKey, Endpoint, 4_096),
        "md_svc4": MapSpec(MapType.HASH, Svc4Key, Svc, 131_072),
        "md_svc6": MapSpec(MapType.HASH, Svc6Key, Svc, 131_072),
        "md_be4": MapSpec(MapType.HASH, _u32, Be4, 65_536),
        "md_be6": MapSpec(MapType.HASH, _u32, Be6, 65_536),
        MAGLEV_PATTERN: MapSpec(MapType.ARRAY, _u32, _u32, 1),
        "md_maglev": MapSpec(MapType.HASH_OF_MAPS, FrontKey, _u32, 65_536),
        "md_aff": MapSpec(MapType.LRU_HASH, AffKey, Aff, 65_536),
        "md_affm": MapSpec(MapType.HASH, AffmKey, _u32, 65_536),
        "md_nat": MapSpec(MapType.LRU_HASH, NatKey, Nat, 131_072),
        "md_nat_used": MapSpec(MapType.ARRAY, _u32, _u32, 1),
        "md_rev4": MapSpec(MapType.LRU_HASH, Rev4Key, Rev4, 65_536),
        "md_rev6": MapSpec(MapType.LRU_HASH, Rev6Key, Rev6, 65_536),
        "md_subject": MapSpec(MapType.HASH, _u32, Subject, 4_096),
        "md_policy": MapSpec(MapType.LPM_TRIE, PolicyKey, PolicyEntry, 262_144),
        "md_outside": MapSpec(MapType.LPM_TRIE, CidrKey, Outside, 16_384),
        "md_iface": MapSpec(MapType.HASH, _u32, Iface, 4_096),
        "md_ct4": MapSpec(MapType.LRU_HASH, Ct4Key, Ct, 131_072),
        "md_ct6": MapSpec(MapType.LRU_HASH, Ct6Key, Ct, 65_536),
        "md_limit": MapSpec(MapType.PERCPU_ARRAY, _u32, Limit, 1),
        "md_drops": MapSpec(MapType.PERCPU_ARRAY, _u32, Counter, 64),
        "md_cfg": MapSpec(MapType.ARRAY, _u32, Cfg, 1),
    }
)

#: Name and size in bytes (a power of two, whole pages) of the ring buffer of events.
EVENTS, EVENTS_SIZE = "md_events", 1 << 18
