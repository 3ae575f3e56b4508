"""Runs compiled programs on a packet and counts what they do: instructions, look-ups by map, calls of helpers.

The bytecode is what the loader gives to the kernel (tests/support/bytecode.py). Counts do not depend on the machine or
its load, as times would. Of the helpers there is what the datapath calls on the ways that are counted.

Addresses fit into 32 bits, as `data` and `data_end` in struct __sk_buff do: the upper 12 name a region, the rest is the
place within. 0 is no region.
"""

import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from datapath.layout import MAPS, MapType

_REGION_BITS = 20
_U64, _U32 = (1 << 64) - 1, (1 << 32) - 1
_SIZES = {0: 4, 1: 2, 2: 1, 3: 8}
_LEN, _PROTOCOL, _IFINDEX, _DATA, _DATA_END, _CONTEXT_SIZE = 0, 16, 40, 76, 80, 192
_EINVAL = (1 << 64) - 22
_NAMES = {
    1: "map_lookup_elem",
    2: "map_update_elem",
    9: "skb_store_bytes",
    11: "l4_csum_replace",
    20: "skb_get_tunnel_key",
    21: "skb_set_tunnel_key",
    23: "redirect",
    26: "skb_load_bytes",
    32: "skb_change_type",
    118: "jiffies64",
    152: "redirect_neigh",
    155: "redirect_peer",
    160: "ktime_get_coarse_ns",
}
_REDIRECT = 7

_MATH: dict[int, Callable[[int, int, int], int]] = {
    0x00: lambda a, b, bits: a + b,
    0x10: lambda a, b, bits: a - b,
    0x20: lambda a, b, bits: a * b,
    0x30: lambda a, b, bits: a // b if b else 0,
    0x40: lambda a, b, bits: a | b,
    0x50: lambda a, b, bits: a & b,
    0x60: lambda a, b, bits: a << (b % bits),
    0x70: lambda a, b, bits: a >> (b % bits),
    0x80: lambda a, b, bits: -a,
    0x90: lambda a, b, bits: a % b if b else a,
    0xA0: lambda a, b, bits: a ^ b,
    0xB0: lambda a, b, bits: b,
    0xC0: lambda a, b, bits: _signed(a, bits) >> (b % bits),
}
_COMPARE: dict[int, Callable[[int, int, int], bool]] = {
    0x00: lambda a, b, bits: True,
    0x10: lambda a, b, bits: a == b,
    0x20: lambda a, b, bits: a > b,
    0x30: lambda a, b, bits: a >= b,
    0x40: lambda a, b, bits: bool(a & b),
    0x50: lambda a, b, bits: a != b,
    0x60: lambda a, b, bits: _signed(a, bits) > _signed(b, bits),
    0x70: lambda a, b, bits: _signed(a, bits) >= _signed(b, bits),
    0xA0: lambda a, b, bits: a < b,
    0xB0: lambda a, b, bits: a <= b,
    0xC0: lambda a, b, bits: _signed(a, bits) < _signed(b, bits),
    0xD0: lambda a, b, bits: _signed(a, bits) <= _signed(b, bits),
}


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


@dataclass
class Cost:
    """What one packet took. `verdict` is the program's result; `frame` the packet as it left."""

    instructions: int = 0
    lookups: list[str] = field(default_factory=list)
    helpers: Counter[str] = field(default_factory=Counter)
    verdict: int = 0
    frame: bytes = b""


@dataclass(frozen=True)
class Code:
    """A compiled program; `maps` names the maps by the descriptors in its bytecode."""

    bytecode: bytes
    maps: Mapping[int, str]

    def run(
        self,
        frame: bytes,
        held: Mapping[str, Mapping[bytes, bytes]],
        *,
        ifindex: int,
        tunnel_key: bytes = b"",
        marks: tuple[int, ...] = (),
    ) -> Cost:
        """`held`: the maps' entries; `tunnel_key`: the struct bpf_tunnel_key that came with it; `marks`: cb[]."""
        return _Run(self, frame, held, tunnel_key).run(ifindex, marks)


class _Run:
    def __init__(self, code: Code, frame: bytes, held: Mapping[str, Mapping[bytes, bytes]], tunnel_key: bytes) -> None:
        self.code, self.held, self.tunnel_key = code, held, tunnel_key
        self.cost = Cost()
        self.regions: list[bytearray] = [bytearray()]
        self.packet = self.new(frame)
        self.stack = self.new(bytes(512))
        self.registers = [0] * 11

    def new(self, content: bytes) -> int:
        """The address of a new region."""
        self.regions.append(bytearray(content))
        return (len(self.regions) - 1) << _REGION_BITS

    def place(self, address: int, size: int) -> tuple[bytearray, int]:
        region, at = self.regions[address >> _REGION_BITS], address & ((1 << _REGION_BITS) - 1)
        assert 0 <= at <= at + size <= len(region), f"{size} bytes at {address:x} are outside"
        return region, at

    def read(self, address: int, size: int) -> bytes:
        region, at = self.place(address, size)
        return bytes(region[at : at + size])

    def write(self, address: int, content: bytes) -> None:
        region, at = self.place(address, len(content))
        region[at : at + len(content)] = content

    def run(self, ifindex: int, marks: tuple[int, ...]) -> Cost:
        frame = self.regions[self.packet >> _REGION_BITS]
        context = bytearray(_CONTEXT_SIZE)
        struct.pack_into("=I", context, _LEN, len(frame))
        context[_PROTOCOL : _PROTOCOL + 2] = frame[12:14]
        struct.pack_into("=I", context, _IFINDEX, ifindex)
        struct.pack_into(f"={len(marks)}I", context, 48, *marks)
        struct.pack_into("=II", context, _DATA, self.packet, self.packet + len(frame))
        self.registers[1], self.registers[10] = self.new(bytes(context)), self.stack + 512
        at = 0
        while at >= 0:
            at = self.step(at)
        self.cost.verdict, self.cost.frame = _signed(self.registers[0] & _U32, 32), bytes(frame)
        return self.cost

    def step(self, at: int) -> int:
        """The number of the next instruction; -1 at the end."""
        op: int
        offset: int
        op, registers, offset, constant = struct.unpack_from("=BBhi", self.code.bytecode, at * 8)
        target, source = registers & 15, registers >> 4
        self.cost.instructions += 1
        kind = op & 7
        if op == 0x18:
            (upper,) = struct.unpack_from("=I", self.code.bytecode, at * 8 + 12)
            self.registers[target] = constant if source else (constant & _U32) | upper << 32
            return at + 2
        if kind in (4, 7):
            self.calculate(op, target, source, constant)
        elif kind == 1:
            found = self.read(self.registers[source] + offset & _U64, _SIZES[op >> 3 & 3])
            self.registers[target] = int.from_bytes(found, "little")
        elif kind in (2, 3):
            size, value = _SIZES[op >> 3 & 3], self.registers[source] if kind == 3 else constant
            self.write(self.registers[target] + offset & _U64, (value & (1 << size * 8) - 1).to_bytes(size, "little"))
        elif op == 0x95:
            return -1
        elif op == 0x85:
            self.registers[0] = self.call(constant) & _U64
        else:
            bits, mask = (64, _U64) if kind == 5 else (32, _U32)
            other = self.registers[source] if op & 8 else constant
            if _COMPARE[op & 0xF0](self.registers[target] & mask, other & mask, bits):
                return at + 1 + offset
        return at + 1

    def calculate(self, op: int, target: int, source: int, constant: int) -> None:
        value = self.registers[target]
        if op & 0xF0 == 0xD0:
            size = constant // 8
            swapped = (value & (1 << constant) - 1).to_bytes(size, "little")
            self.registers[target] = int.from_bytes(swapped, "big" if op & 8 else "little")
            return
        bits, mask = (64, _U64) if op & 7 == 7 else (32, _U32)
        other = self.registers[source] if op & 8 else constant
        self.registers[target] = _MATH[op & 0xF0](value & mask, other & mask, bits) & mask

    def call(self, number: int) -> int:
        assert number in _NAMES, f"helper {number} is not known here"
        self.cost.helpers[_NAMES[number]] += 1
        first, second, third, fourth = self.registers[1:5]
        if number == 1:
            return self.look_up(self.code.maps[first], second)
        if number == 26:
            frame = self.regions[self.packet >> _REGION_BITS]
            if second + fourth > len(frame):
                return _EINVAL
            self.write(third, bytes(frame[second : second + fourth]))
        elif number == 9:
            self.write(self.packet + second, self.read(third, fourth))
        elif number == 20:
            if not self.tunnel_key:
                return _EINVAL
            self.write(second, self.tunnel_key[:third])
        return _REDIRECT if number in (23, 152, 155) else 0

    def look_up(self, map: str, key_at: int) -> int:
        spec = MAPS[map]
        self.cost.lookups.append(map)
        key = self.read(key_at, spec.key_size)
        value = self.held.get(map, {}).get(key)
        if value is None and spec.kind in (MapType.ARRAY, MapType.PERCPU_ARRAY):
            value = bytes(spec.value_size)
        return 0 if value is None else self.new(value)
