"""Map entries → what they were built from, and a line for people. The inverse of entries.py."""

import ctypes
import sys
import zlib
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network
from types import MappingProxyType

from datapath.entries import OVERHEAD4, Direct, Entry, IPAddress
from datapath.layout import AddrKey, Cfg, CidrKey, Endpoint, EndpointFlag, Family, Node, NodeFlag, Peer, PeerFlag
from datapath.policylayout import Outside, PolicyEntry, PolicyKey, Subject, SubjectFlag, VerdictCode
from datapath.servicelayout import AffmKey, Be4, Be6, FrontKey, Svc, Svc4Key, Svc6Key, SvcFlag


def decode(entry: Entry) -> dict[str, object]:
    """The arguments that the entry was built from; of a Maglev table the CRC of its bytes.

    Raises KeyError for a map that has no builder.
    """
    return _DECODERS[entry.map](entry.key, entry.value)


def describe(entry: Entry) -> str:
    """One line for people, for example `10.0.0.1 identity=65537 tunnel=172.18.2.11 remote=True`."""
    facts = decode(entry)
    subject = {
        "md_ipcache": ("address",),
        "md_cidrs": ("prefix",),
        "md_node": ("address",),
        "md_endpoint": ("address",),
        "md_be4": ("backend_id",),
        "md_be6": ("backend_id",),
        "md_cfg": (),
        "md_numbers": (),
        "md_subject": ("identity",),
        "md_policy": ("subject", "direction", "peer"),
        "md_outside": ("prefix",),
    }.get(entry.map, ("address", "port", "protocol"))
    words = ["/".join(str(facts.pop(name)) for name in subject)] if subject else []
    words += [f"{name}={_text(value)}" for name, value in facts.items()]
    return " ".join(words)


def _text(value: object) -> str:
    return value.hex(":") if isinstance(value, bytes) else "none" if value is None else str(value)


def _address(family: int, word: bytes) -> IPAddress:
    return IPv4Address(word[:4]) if family == Family.V4 else IPv6Address(word)


def _decode_peer(value: bytes) -> dict[str, object]:
    peer = Peer.from_buffer_copy(value)
    tunnel: IPAddress | None = None
    if peer.flags & (PeerFlag.TUNNEL4 | PeerFlag.TUNNEL6):
        family = Family.V4 if peer.flags & PeerFlag.TUNNEL4 else Family.V6
        tunnel = _address(family, bytes(peer.tunnel))
    facts: dict[str, object] = {"identity": peer.identity, "tunnel": tunnel}
    facts["remote"] = bool(peer.flags & PeerFlag.REMOTE)
    return facts | ({"unreachable": True} if peer.flags & PeerFlag.UNREACHABLE else {})


def _decode_ipcache(key: bytes, value: bytes) -> dict[str, object]:
    k = AddrKey.from_buffer_copy(key)
    return {"address": _address(k.family, bytes(k.word)), **_decode_peer(value)}


def _decode_cidr(key: bytes, value: bytes) -> dict[str, object]:
    k = CidrKey.from_buffer_copy(key)
    prefix = ip_network((_address(k.family, bytes(k.word)), k.prefixlen - 32))
    return {"prefix": prefix, **_decode_peer(value)}


def _decode_endpoint(key: bytes, value: bytes) -> dict[str, object]:
    k = AddrKey.from_buffer_copy(key)
    v = Endpoint.from_buffer_copy(value)
    return {
        "address": _address(k.family, bytes(k.word)),
        "ifindex": v.ifindex,
        "mac": bytes(v.mac),
        "host_mac": bytes(v.host_mac),
        "identity": v.identity,
        "policed": bool(v.flags & EndpointFlag.POLICED),
        "through_stack": bool(v.flags & EndpointFlag.STACK),
    }


def _decode_node(key: bytes, value: bytes) -> dict[str, object]:
    k, v = AddrKey.from_buffer_copy(key), Node.from_buffer_copy(value)
    hops: dict[int, IPAddress] = {4: IPv4Address(bytes(v.hop4)), 6: IPv6Address(bytes(v.hop6))}
    ways = {4: NodeFlag.DIRECT4, 6: NodeFlag.DIRECT6}
    direct = {n: Direct(v.direct_ifindex, hops[n], v.direct_mtu) if v.flags & ways[n] else None for n in ways}
    return {
        "address": _address(k.family, bytes(k.word)),
        "cluster_id": v.cluster_id,
        "remote": bool(v.flags & NodeFlag.REMOTE),
        "here": bool(v.flags & NodeFlag.HERE),
        "tunnel_ifindex": v.tunnel_ifindex,
        "tunnel_mtu": v.tunnel_mtu,
        "direct4": direct[4],
        "direct6": direct[6],
    }


def _decode_backend(key: bytes, value: bytes) -> dict[str, object]:
    v4 = len(value) == ctypes.sizeof(Be4)
    v = (Be4 if v4 else Be6).from_buffer_copy(value)
    return {
        "backend_id": int.from_bytes(key, sys.byteorder),
        "address": _address(Family.V4 if v4 else Family.V6, bytes(v.address)),
        "port": v.port,
        "protocol": v.protocol,
    }


def _decode_mark(key: bytes, value: bytes) -> dict[str, object]:
    return {"mark": int.from_bytes(value, sys.byteorder)}


def _decode_svc(key: bytes, value: bytes) -> dict[str, object]:
    v4 = len(key) == ctypes.sizeof(Svc4Key)
    k = (Svc4Key if v4 else Svc6Key).from_buffer_copy(key)
    v = Svc.from_buffer_copy(value)
    facts: dict[str, object] = {
        "address": _address(Family.V4 if v4 else Family.V6, bytes(k.address)),
        "port": k.port,
        "protocol": k.protocol,
    }
    if k.slot:
        weighted: dict[str, object] = {"chance": v.count, "alias": v.flags} if v.count else {}
        return facts | {"slot": k.slot, "backend_id": v.backend} | weighted
    facts["count"] = v.count
    if v.backend:
        facts["session_affinity_timeout_s"] = v.backend
    if v.flags & ~SvcFlag.AFFINITY:
        facts["flags"] = SvcFlag(v.flags & ~SvcFlag.AFFINITY)
    return facts


def _front(key: FrontKey | AffmKey) -> dict[str, object]:
    address = _address(key.family or Family.V6, bytes(key.address))
    return {"address": address, "port": key.port, "protocol": key.protocol}


def _decode_member(key: bytes, value: bytes) -> dict[str, object]:
    k = AffmKey.from_buffer_copy(key)
    return _front(k) | {"backend_id": k.backend}


def _decode_maglev(key: bytes, value: bytes) -> dict[str, object]:
    return _front(FrontKey.from_buffer_copy(key)) | {"table": zlib.crc32(value)}


def _decode_cfg(key: bytes, value: bytes) -> dict[str, object]:
    v = Cfg.from_buffer_copy(value)
    mtu = v.inner_mtu4 + OVERHEAD4 if v.inner_mtu4 else 0
    return {"tunnel_ifindex": v.tunnel_ifindex, "underlay_mtu": mtu, "node_netns": v.node_netns}


def _decode_subject(key: bytes, value: bytes) -> dict[str, object]:
    v = Subject.from_buffer_copy(value)
    closed = [n for n, flag in enumerate((SubjectFlag.CLOSED_INGRESS, SubjectFlag.CLOSED_EGRESS)) if v.flags & flag]
    shut = [n for n, flag in enumerate((SubjectFlag.SHUT_INGRESS, SubjectFlag.SHUT_EGRESS)) if v.flags & flag]
    audit = bool(v.flags & SubjectFlag.AUDIT)
    identity = int.from_bytes(key, sys.byteorder)
    return {"identity": identity, "revision": v.revision, "closed": closed, "audit": audit, "shut": shut}


def _decode_policy(key: bytes, value: bytes) -> dict[str, object]:
    k, v = PolicyKey.from_buffer_copy(key), PolicyEntry.from_buffer_copy(value)
    return {
        "subject": k.subject,
        "direction": k.direction,
        "peer": k.peer,
        "protocol": k.protocol,
        "port": k.port,
        "length": k.prefixlen - 72,
        "allowed": v.verdict == VerdictCode.ALLOW,
    }


def _decode_outside(key: bytes, value: bytes) -> dict[str, object]:
    k = CidrKey.from_buffer_copy(key)
    prefix = ip_network((_address(k.family, bytes(k.word)), k.prefixlen - 32))
    return {"prefix": prefix, "identity": Outside.from_buffer_copy(value).identity}


_DECODERS: Mapping[str, Callable[[bytes, bytes], dict[str, object]]] = MappingProxyType(
    {
        "md_ipcache": _decode_ipcache,
        "md_cidrs": _decode_cidr,
        "md_node": _decode_node,
        "md_endpoint": _decode_endpoint,
        "md_be4": _decode_backend,
        "md_be6": _decode_backend,
        "md_numbers": _decode_mark,
        "md_svc4": _decode_svc,
        "md_svc6": _decode_svc,
        "md_affm": _decode_member,
        "md_maglev": _decode_maglev,
        "md_cfg": _decode_cfg,
        "md_subject": _decode_subject,
        "md_policy": _decode_policy,
        "md_outside": _decode_outside,
    }
)
