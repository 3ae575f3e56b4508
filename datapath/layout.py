"""The ctypes twin of bpf/layout.h and bpf/drop.h, with the list of all maps; services and policy have their own.

The C headers are the truth. That the twins equal them is proved by a unit test (a C program prints every size
and offset), when the programs are loaded (bcc's types) and when a pinned map is used again (the kernel's figures).
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from types import MappingProxyType

from datapath.policylayout import Ct, Ct4Key, Ct6Key, Event, Iface, Limit, Outside, PolicyEntry, PolicyKey, Subject
from datapath.servicelayout import (
    Aff,
    AffKey,
    AffmKey,
    Be4,
    Be6,
    FrontKey,
    Nat,
    NatKey,
    Rev4,
    Rev4Key,
    Rev6,
    Rev6Key,
    Svc,
    Svc4Key,
    Svc6Key,
)
from datapath.words import mac, u8, u16, u32, u64, v4, v6

LAYOUT_VERSION = 1
IDENTITY_BITS = 24
KNOWN_BITS4, KNOWN_BITS6 = 1 << 24, 1 << 16


class Family(IntEnum):
    V4 = 4
    V6 = 6


class PeerFlag(IntFlag):
    REMOTE = 1
    TUNNEL4 = 2
    TUNNEL6 = 4
    UNREACHABLE = 8


class EndpointFlag(IntFlag):
    POLICED = 1
    STACK = 2


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
    UNVERIFIED = 7
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
    POLICY_SHUT = 19
    SOURCE_UNVERIFIED = 20

    @property
    def label(self) -> str:
        """The reason as people read it: `no-endpoint`."""
        return self.name.lower().replace("_", "-")


NOT_DROPS = frozenset({DropReason.UNVERIFIED, DropReason.POLICY_AUDITED, DropReason.EVENT_SUPPRESSED})


class AddrKey(ctypes.Structure):
    _fields_ = (("family", u8), ("pad", u8 * 3), ("word", v6))


class CidrKey(ctypes.Structure):
    _fields_ = (("prefixlen", u32), ("family", u8), ("pad", u8 * 3), ("word", v6))


class Known(ctypes.Structure):
    _fields_ = (("bits", u8 * 8),)


class Peer(ctypes.Structure):
    _fields_ = (("identity", u32), ("flags", u32), ("tunnel", v6))


class Node(ctypes.Structure):
    _fields_ = (
        ("cluster_id", u32),
        ("flags", u32),
        ("tunnel_ifindex", u32),
        ("direct_ifindex", u32),
        ("tunnel_mtu", u16),
        ("direct_mtu", u16),
        ("hop4", v4),
        ("hop6", v6),
    )


class ReplyKey(ctypes.Structure):
    _fields_ = (("pod", AddrKey), ("node", AddrKey))


class Endpoint(ctypes.Structure):
    _fields_ = (("ifindex", u32), ("identity", u32), ("mac", mac), ("host_mac", mac), ("flags", u32))


class Counter(ctypes.Structure):
    _fields_ = (("packets", u64), ("bytes", u64))


class Cfg(ctypes.Structure):
    _fields_ = (("tunnel_ifindex", u32), ("inner_mtu4", u16), ("inner_mtu6", u16), ("node_netns", u64))


# C name of every struct and its twin.
STRUCTS: Mapping[str, type[ctypes.Structure]] = MappingProxyType(
    {
        "addr_key": AddrKey,
        "cidr_key": CidrKey,
        "known": Known,
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
        "md_known": MapSpec(MapType.ARRAY, u32, Known, (KNOWN_BITS4 + KNOWN_BITS6) // 64),
        "md_ipcache": MapSpec(MapType.HASH, AddrKey, Peer, 524_288),
        "md_cidrs": MapSpec(MapType.LPM_TRIE, CidrKey, Peer, 65_536),
        "md_node": MapSpec(MapType.HASH, AddrKey, Node, 131_072),
        "md_replies": MapSpec(MapType.LRU_HASH, ReplyKey, Peer, 16_384),
        "md_endpoint": MapSpec(MapType.HASH, AddrKey, Endpoint, 4_096),
        "md_svc4": MapSpec(MapType.HASH, Svc4Key, Svc, 131_072),
        "md_svc6": MapSpec(MapType.HASH, Svc6Key, Svc, 131_072),
        "md_be4": MapSpec(MapType.HASH, u32, Be4, 65_536),
        "md_be6": MapSpec(MapType.HASH, u32, Be6, 65_536),
        "md_numbers": MapSpec(MapType.ARRAY, u32, u32, 1),
        MAGLEV_PATTERN: MapSpec(MapType.ARRAY, u32, u32, 1),
        "md_maglev": MapSpec(MapType.HASH_OF_MAPS, FrontKey, u32, 65_536),
        "md_aff": MapSpec(MapType.LRU_HASH, AffKey, Aff, 65_536),
        "md_affm": MapSpec(MapType.HASH, AffmKey, u32, 65_536),
        "md_nat": MapSpec(MapType.LRU_HASH, NatKey, Nat, 131_072),
        "md_used": MapSpec(MapType.ARRAY, u32, u32, 3),
        "md_rev4": MapSpec(MapType.LRU_HASH, Rev4Key, Rev4, 65_536),
        "md_rev6": MapSpec(MapType.LRU_HASH, Rev6Key, Rev6, 65_536),
        "md_subject": MapSpec(MapType.HASH, u32, Subject, 4_096),
        "md_policy": MapSpec(MapType.LPM_TRIE, PolicyKey, PolicyEntry, 262_144),
        "md_outside": MapSpec(MapType.LPM_TRIE, CidrKey, Outside, 262_144),
        "md_iface": MapSpec(MapType.HASH, u32, Iface, 4_096),
        "md_ct4": MapSpec(MapType.LRU_HASH, Ct4Key, Ct, 131_072),
        "md_ct6": MapSpec(MapType.LRU_HASH, Ct6Key, Ct, 65_536),
        "md_limit": MapSpec(MapType.PERCPU_ARRAY, u32, Limit, 64),
        "md_drops": MapSpec(MapType.PERCPU_ARRAY, u32, Counter, 64),
        "md_cfg": MapSpec(MapType.ARRAY, u32, Cfg, 1),
    }
)

#: Name and size in bytes (a power of two, whole pages) of the ring buffer of events.
EVENTS, EVENTS_SIZE = "md_events", 1 << 18
