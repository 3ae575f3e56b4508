"""The pods of this node as a target of the reconcilers: their interfaces, programs and entries. Used in the worker
thread only.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Set
from ipaddress import ip_address

from datapath.entries import IPAddress, endpoint_entry
from datapath.interface import Interface, InterfaceError, NoInterface
from datapath.layout import AddrKey, Endpoint, Family
from datapath.policylayout import Iface
from meshd.daemon.kernel import MapTarget, PinnedMaps
from meshd.reconcile.delta import UNKNOWN
from meshd.reconcile.target import Item, TargetError, TargetFull


class PodTarget:
    """The pods of this node: finds the interface, attaches the programs, writes md_endpoint, and md_iface where some
    policy holds. Writes only differences.
    """

    def __init__(
        self,
        maps: PinnedMaps,
        *,
        find: Callable[[IPAddress], Interface | None],
        attach: Callable[[Interface], None],
        police: Callable[[Interface, bool], None],
        through_stack: bool = False,
    ) -> None:
        self._maps, self._find, self._attach = MapTarget(maps), find, attach
        self._police, self._through_stack = police, through_stack
        self.without: dict[bytes, str] = {}
        """Pods (packed address) that have no interface of their own, with the reason: the stack serves them, no policy
        does. Replaced, never changed: others read it from another thread.
        """
        self._held = self._maps.dump("md_endpoint")
        self._ifaces = self._maps.dump("md_iface")
        self.writes = 0

    def dump(self, map: str) -> dict[bytes, bytes]:
        """Which pods there are entries of. Whether these are right is seen when they are upserted."""
        return {_packed(key): UNKNOWN for key in self._held}

    def lost(self, ifindexes: Set[int]) -> list[bytes]:
        """The pods whose interface is none of these any more, and those that may have one now. From any thread."""
        held = self._held.copy()
        gone = [
            _packed(key) for key, value in held.items() if Endpoint.from_buffer_copy(value).ifindex not in ifindexes
        ]
        return [*gone, *self.without]

    def upsert(self, map: str, items: Mapping[bytes, bytes]) -> None:
        for packed, value in items.items():
            try:
                self._upsert(packed, value)
            except TargetFull as full:  # it names keys of another map than the pods'
                raise TargetError(full.map, full.operation, full.reason) from full

    def _upsert(self, packed: bytes, value: bytes) -> None:
        identity, policed = int.from_bytes(value[:4], sys.byteorder), value[4:] == b"\1"
        address = ip_address(packed)
        try:
            interface = self._find(address)
        except InterfaceError as error:
            raise TargetError("md_endpoint", "find", str(error)) from error
        except NoInterface as error:
            self._forget(packed)
            self.without = self.without | {packed: str(error)}
            return
        if interface is None:
            raise TargetError("md_endpoint", "find", f"the pod {address} has no interface of its own (yet)")
        self._have(packed)
        self._attach(interface)
        if policed:
            self._set_iface(interface.ifindex, identity)
            self._police(interface, True)
        entry = endpoint_entry(
            address,
            ifindex=interface.ifindex,
            mac=interface.mac,
            host_mac=interface.host_mac,
            identity=identity,
            policed=policed,
            through_stack=self._through_stack,
        )
        if self._held.get(entry.key) != entry.value:
            self._maps.upsert(entry.map, {entry.key: entry.value})
            self._held[entry.key] = entry.value
            self.writes += 1
        if not policed and self._iface_of(interface.ifindex) is not None:
            self._police(interface, False)
            self._set_iface(interface.ifindex, None)

    def delete(self, map: str, keys: Iterable[bytes]) -> None:
        for packed in keys:
            self._have(packed)
            self._forget(packed)

    def _have(self, packed: bytes) -> None:
        """The pod is none that has no interface."""
        if packed in self.without:
            self.without = {pod: reason for pod, reason in self.without.items() if pod != packed}

    def _forget(self, packed: bytes) -> None:
        key = _key(packed)
        self._maps.delete("md_endpoint", [key])
        gone = self._held.pop(key, None)
        ifindex = Endpoint.from_buffer_copy(gone).ifindex if gone else 0
        if not any(Endpoint.from_buffer_copy(value).ifindex == ifindex for value in self._held.values()):
            self._set_iface(ifindex, None)

    def _iface_of(self, ifindex: int) -> bytes | None:
        return self._ifaces.get(ifindex.to_bytes(4, sys.byteorder))

    def _set_iface(self, ifindex: int, identity: int | None) -> None:
        key = ifindex.to_bytes(4, sys.byteorder)
        value = bytes(Iface(identity)) if identity is not None else None
        if self._ifaces.get(key) == value:
            return
        if value is None:
            self._maps.delete("md_iface", [key])
            del self._ifaces[key]
        else:
            self._maps.upsert("md_iface", {key: value})
            self._ifaces[key] = value
        self.writes += 1


class PodShape:
    """Pods do not depend on each other."""

    def rank(self, map: str, key: bytes) -> int:
        return 0

    def needs(self, map: str, key: bytes, value: bytes) -> Iterable[Item]:
        return ()

    def is_brief(self, map: str) -> bool:
        return False  # netlink, and programs to attach

    def describe(self, map: str, key: bytes) -> str:
        return f"pod {ip_address(key)}"


def _packed(key: bytes) -> bytes:
    address = AddrKey.from_buffer_copy(key)
    return bytes(address.word)[: 4 if address.family == Family.V4 else 16]


def _key(packed: bytes) -> bytes:
    blank = bytes(6)
    return endpoint_entry(ip_address(packed), ifindex=1, mac=blank, host_mac=blank, identity=0).key
