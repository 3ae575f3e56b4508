"""A strict fake of the pinned maps: refuses what the kernel would refuse, counts writes, can be full or faulty."""

import random
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from datapath.interface import Interface, NoInterface
from datapath.layout import MAPS, MapType
from datapath.maglev import DEFAULT_SIZE, ENTRY_BYTES
from datapath.maps import MapError, MapFull

EIO = 5


class FakeMaps:
    """Behaves as datapath.maps.Maps. `fails` says for which operation on which key an error comes instead."""

    def __init__(self, *, sizes: Mapping[str, int] | None = None) -> None:
        self.content: dict[str, dict[bytes, bytes]] = {name: {} for name in MAPS}
        self.sizes = dict(sizes or {})
        self.writes: list[tuple[str, str, bytes]] = []
        self.fails: Callable[[str, str, bytes], bool] = no_faults

    def dump(self, map: str) -> dict[bytes, bytes]:
        return dict(self.content[map])

    def upsert(self, map: str, items: Mapping[bytes, bytes]) -> None:
        spec, held = MAPS[map], self.content[map]
        rejected = []
        for key, value in items.items():
            value_size = DEFAULT_SIZE * ENTRY_BYTES if spec.kind is MapType.HASH_OF_MAPS else spec.value_size
            assert (len(key), len(value)) == (spec.key_size, value_size), f"{map}: sizes of {key!r}: {value!r}"
            if self.fails("upsert", map, key):
                raise MapError(map, "upsert", EIO)
            if key not in held and len(held) >= self.sizes.get(map, spec.size):
                rejected.append(key)
                continue
            self.writes.append(("upsert", map, key))
            held[key] = value
        if rejected:
            raise MapFull(map, tuple(rejected))

    def delete(self, map: str, keys: Iterable[bytes]) -> None:
        for key in keys:
            if self.fails("delete", map, key):
                raise MapError(map, "delete", EIO)
            self.writes.append(("delete", map, key))
            self.content[map].pop(key, None)


def no_faults(op: str, map: str, key: bytes) -> bool:
    return False


def random_faults(seed: int, *, share: float = 0.1) -> Callable[[str, str, bytes], bool]:
    """Every operation fails with this probability."""
    rng = random.Random(seed)
    return lambda op, map, key: rng.random() < share


class FakeInterfaces:
    """Interfaces by address; `attached` has the ifindex of those that got the program."""

    def __init__(self) -> None:
        self.known: dict[IPv4Address | IPv6Address, Interface] = {}
        self.shared: dict[IPv4Address | IPv6Address, str] = {}
        """Pods without an interface of their own, with the reason."""
        self.attached: list[int] = []
        self.policed: set[int] = set()

    def add(self, address: IPv4Address | IPv6Address, ifindex: int) -> None:
        mac = bytes([2, 0, 0, 0, 0, ifindex])
        self.known[address] = Interface(ifindex, f"veth{ifindex}", mac, bytes([2, 0, 0, 0, 1, ifindex]))

    def find(self, address: IPv4Address | IPv6Address) -> Interface | None:
        if reason := self.shared.get(address):
            raise NoInterface(reason)
        return self.known.get(address)

    def attach(self, interface: Interface) -> None:
        self.attached.append(interface.ifindex)

    def police(self, interface: Interface, policed: bool) -> None:
        (self.policed.add if policed else self.policed.discard)(interface.ifindex)
