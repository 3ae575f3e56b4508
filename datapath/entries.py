"""Desired values → map entries. Pure; the way back is description.py."""

import ctypes
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType

from datapath.layout import IDENTITY_BITS, AddrKey, Cfg, CidrKey, Endpoint, EndpointFlag, Node, NodeFlag, Peer, PeerFlag
from datapath.servicelayout import AffmKey, Be4, Be6, FrontKey, Svc, Svc4Key, Svc6Key, SvcFlag
from datapath.slots import Slot

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

# Outer IP + UDP + VXLAN + inner Ethernet header.
OVERHEAD4 = 20 + 8 + 8 + 14
OVERHEAD6 = 40 + 8 + 8 + 14

# In which order maps are published; the reverse to remove. A frontend (slot 0) comes after its slots: within
# md_svc4 and md_svc6 the order that `service_entries` gives is the order to write.
RANK: Mapping[str, int] = MappingProxyType(
    {
        "md_cfg": 0,
        "md_node": 1,
        "md_endpoint": 1,
        "md_numbers": 1,
        "md_be4": 2,
        "md_be6": 2,
        "md_affm": 3,
        "md_maglev": 3,
        "md_cidrs": 3,
        "md_ipcache": 4,
        "md_svc4": 5,
        "md_svc6": 5,
    }
)

MAX_SLOTS = 0xFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a BPF map, ready to write."""

    map: str
    key: bytes
    value: bytes


def ipcache_entry(
    address: IPAddress, *, identity: int, tunnel: IPAddress | None, remote: bool, unreachable: bool = False
) -> Entry:
    """Who `address` is and, if `tunnel`, which node carries it. `unreachable`: its cluster is withdrawn."""
    return Entry("md_ipcache", _addr_key(address), _peer(identity, tunnel, remote, unreachable))


def address_key(packed: bytes) -> bytes:
    """The key of md_ipcache for an address of 4 or 16 bytes."""
    before, after = _AROUND_ADDRESS[4 if len(packed) == 4 else 6]
    return before + packed + after


def peer_value(identity: int, tunnel: IPAddress | None, *, remote: bool, unreachable: bool = False) -> bytes:
    """The value of md_ipcache, as `ipcache_entry` has it."""
    return _peer(identity, tunnel, remote, unreachable)


def cidr_entry(
    prefix: IPNetwork, *, identity: int, tunnel: IPAddress | None, remote: bool, unreachable: bool = False
) -> Entry:
    """The fallback for addresses of `prefix` without an entry of their own."""
    word = prefix.network_address.packed
    key = CidrKey(prefixlen=32 + prefix.prefixlen, family=prefix.version, word=_padded(word))
    return Entry("md_cidrs", bytes(key), _peer(identity, tunnel, remote, unreachable))


@dataclass(frozen=True, slots=True)
class Direct:
    """Packets of one family go to `hop` through a device as they are; `mtu` in bytes."""

    ifindex: int
    hop: IPAddress
    mtu: int


def node_entry(
    address: IPAddress,
    *,
    cluster_id: int,
    remote: bool,
    here: bool = False,
    tunnel_ifindex: int = 0,
    tunnel_mtu: int = 0,
    direct4: Direct | None = None,
    direct6: Direct | None = None,
) -> Entry:
    """A node by one of its addresses, and what carries packets there: tunnel device 0 and no direct way mean nothing
    does. `tunnel_mtu` is the largest packet inside. Both families leave by one device.
    """
    flags = NodeFlag.REMOTE if remote else NodeFlag(0)
    flags |= NodeFlag.HERE if here else NodeFlag(0)
    flags |= NodeFlag.TUNNEL if tunnel_ifindex else NodeFlag(0)
    direct6 = None if direct4 and direct6 and direct4.ifindex != direct6.ifindex else direct6
    flags |= NodeFlag.DIRECT4 if direct4 else NodeFlag(0)
    flags |= NodeFlag.DIRECT6 if direct6 else NodeFlag(0)
    direct = direct4 or direct6
    value = Node(
        cluster_id=cluster_id,
        flags=flags,
        tunnel_ifindex=tunnel_ifindex,
        direct_ifindex=direct.ifindex if direct else 0,
        tunnel_mtu=tunnel_mtu,
        direct_mtu=min(direct.mtu, 0xFFFF) if direct else 0,
        hop4=_packed4(direct4.hop) if direct4 else (ctypes.c_uint8 * 4)(),
        hop6=_padded(direct6.hop.packed if direct6 else b""),
    )
    return Entry("md_node", _addr_key(address), bytes(value))


def inner_mtu(underlay_mtu: int, version: int) -> int:
    """The largest IP packet that a tunnel over an underlay of this MTU and IP version carries; 0 if none is known."""
    return max(0, min(underlay_mtu, 0xFFFF) - (OVERHEAD4 if version == 4 else OVERHEAD6))


def endpoint_entry(
    address: IPAddress,
    *,
    ifindex: int,
    mac: bytes,
    host_mac: bytes,
    identity: int,
    policed: bool = False,
    through_stack: bool = False,
) -> Entry:
    """A pod of this node: `ifindex` and `host_mac` are its interface's host side, `mac` is the pod's.

    `policed`: a policy holds for it; the policy programs hang on its interface. `through_stack`: what it and pods of
    other clusters say to each other passes the node's stack.
    """
    _require("identity", identity, (1 << IDENTITY_BITS) - 1)
    _require("ifindex", ifindex, 0x7FFFFFFF, least=1)
    value = Endpoint(
        ifindex=ifindex,
        identity=identity,
        mac=_mac(mac),
        host_mac=_mac(host_mac),
        flags=(EndpointFlag.POLICED if policed else 0) | (EndpointFlag.STACK if through_stack else 0),
    )
    return Entry("md_endpoint", _addr_key(address), bytes(value))


def backend_entry(backend_id: int, address: IPAddress, port: int, protocol: int) -> Entry:
    """`protocol` is IPPROTO_*; `backend_id` 0 means none and is refused."""
    _require("backend_id", backend_id, 0xFFFFFFFF, least=1)
    _require("port", port, 0xFFFF, least=1)
    key = backend_id.to_bytes(4, sys.byteorder)
    if address.version == 4:
        return Entry("md_be4", key, bytes(Be4(_packed4(address), port, protocol)))
    return Entry("md_be6", key, bytes(Be6(_padded(address.packed), port, protocol)))


def mark_entry(mark: int) -> Entry:
    """Numbers of backends up to here are used, or were lately; 0: none were."""
    _require("mark", mark, 0xFFFFFFFF)
    return Entry("md_numbers", bytes(4), mark.to_bytes(4, sys.byteorder))


def service_entries(address: IPAddress, port: int, protocol: int, backend_ids: Sequence[int]) -> list[Entry]:
    """Slots 1..n, then the frontend (slot 0), whose count makes them visible.

    No backend at all gives a frontend that refuses connections.
    """
    _require("number of backends", len(backend_ids), MAX_SLOTS)
    slots = [
        slot_entry(address, port, protocol, slot=n, value=Slot(backend_id))
        for n, backend_id in enumerate(backend_ids, 1)
    ]
    return [*slots, frontend_entry(address, port, protocol, count=len(backend_ids))]


def slot_entry(address: IPAddress, port: int, protocol: int, *, slot: int, value: Slot) -> Entry:
    """The `slot`-th (from 1) backend reference of a frontend."""
    _require("slot", slot, MAX_SLOTS, least=1)
    _require("backend_id", value.backend_id, 0xFFFFFFFF, least=1)
    svc = Svc(backend=value.backend_id, count=value.chance, flags=value.alias)
    return _svc_entry(address, port, protocol, slot, svc)


def frontend_entry(
    address: IPAddress,
    port: int,
    protocol: int,
    *,
    count: int,
    session_affinity_timeout_s: int = 0,
    flags: int = 0,
) -> Entry:
    """Slot 0: from now on `count` slots are chosen from. A time-out of 0: no session affinity."""
    _require("count", count, MAX_SLOTS)
    _require("session_affinity_timeout_s", session_affinity_timeout_s, 0xFFFFFFFF)
    if session_affinity_timeout_s:
        flags |= SvcFlag.AFFINITY
    svc = Svc(backend=session_affinity_timeout_s, count=count, flags=flags)
    return _svc_entry(address, port, protocol, 0, svc)


def member_entry(address: IPAddress, port: int, protocol: int, backend_id: int) -> Entry:
    """With session affinity: clients of the frontend may stay with this backend."""
    _require("backend_id", backend_id, 0xFFFFFFFF, least=1)
    front = _front_key(address, port, protocol)
    key = AffmKey(front.address, front.port, front.protocol, front.family, backend_id)
    return Entry("md_affm", bytes(key), (1).to_bytes(4, sys.byteorder))


def maglev_entry(address: IPAddress, port: int, protocol: int, table: bytes) -> Entry:
    """A frontend's Maglev table: four bytes, a backend's number, for each of its entries."""
    return Entry("md_maglev", bytes(_front_key(address, port, protocol)), table)


def config_entry(*, tunnel_ifindex: int, underlay_mtu: int, node_netns: int = 0) -> Entry:
    """What the programs must know of this node. `underlay_mtu` in bytes, 0 sets no limit.

    `node_netns` is the cookie of the node's own network namespace (socket(7), SO_NETNS_COOKIE): its sockets are left
    to kube-proxy, as only pods' packets are tunnelled. 0: all sockets are balanced.
    """
    _require("underlay_mtu", underlay_mtu, 0xFFFF)
    _require("tunnel_ifindex", tunnel_ifindex, 0x7FFFFFFF)
    cfg = Cfg(
        tunnel_ifindex=tunnel_ifindex,
        inner_mtu4=inner_mtu(underlay_mtu, 4),
        inner_mtu6=inner_mtu(underlay_mtu, 6),
        node_netns=node_netns,
    )
    return Entry("md_cfg", bytes(4), bytes(cfg))


def _require(name: str, value: int, most: int, *, least: int = 0) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} {value} is not between {least} and {most}")


def _padded(packed: bytes) -> ctypes.Array[ctypes.c_uint8]:
    return (ctypes.c_uint8 * 16).from_buffer_copy(packed.ljust(16, b"\0"))


def _packed4(address: IPAddress) -> ctypes.Array[ctypes.c_uint8]:
    return (ctypes.c_uint8 * 4).from_buffer_copy(address.packed)


def _mac(mac: bytes) -> ctypes.Array[ctypes.c_uint8]:
    _require("length of a MAC address", len(mac), 6, least=6)
    return (ctypes.c_uint8 * 6).from_buffer_copy(mac)


def _around_address(version: int, size: int) -> tuple[bytes, bytes]:
    """The bytes of an AddrKey before and after the address itself."""
    blank, start = bytes(AddrKey(family=version)), AddrKey.word.offset
    return blank[:start], blank[start + size :]


_AROUND_ADDRESS = {4: _around_address(4, 4), 6: _around_address(6, 16)}


def _addr_key(address: IPAddress) -> bytes:
    before, after = _AROUND_ADDRESS[address.version]
    return before + address.packed + after


def _peer(identity: int, tunnel: IPAddress | None, remote: bool, unreachable: bool) -> bytes:
    _require("identity", identity, 0xFFFFFFFF)
    flags = _peer_flags(remote, unreachable, tunnel.version if tunnel else 0)
    return bytes(Peer(identity, flags, _padded(tunnel.packed if tunnel else b"")))


@cache
def _peer_flags(remote: bool, unreachable: bool, tunnel_version: int) -> int:
    """A dozen answers, asked for with every address: flags of an enum are slow to join."""
    flags = PeerFlag.REMOTE if remote else PeerFlag(0)
    if unreachable:
        flags |= PeerFlag.UNREACHABLE
    if tunnel_version:
        flags |= PeerFlag.TUNNEL4 if tunnel_version == 4 else PeerFlag.TUNNEL6
    return int(flags)


def _front_key(address: IPAddress, port: int, protocol: int) -> FrontKey:
    _require("port", port, 0xFFFF, least=1)
    return FrontKey(_padded(address.packed), port, protocol, address.version)


def _svc_entry(address: IPAddress, port: int, protocol: int, slot: int, value: Svc) -> Entry:
    _require("port", port, 0xFFFF, least=1)
    if address.version == 4:
        key4 = Svc4Key(address=_packed4(address), port=port, slot=slot, protocol=protocol)
        return Entry("md_svc4", bytes(key4), bytes(value))
    key6 = Svc6Key(address=_padded(address.packed), port=port, slot=slot, protocol=protocol)
    return Entry("md_svc6", bytes(key6), bytes(value))
