"""Reads the pinned ring buffer of events. Not thread-safe; `fd` becomes readable when there is something.

The kernel's layout: a page that the reader writes (its position), a page that the kernel writes (its own), then the
data, mapped twice in a row so that no record is cut. A record is its length with two flags, padded to eight bytes.
"""

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from datapath import bpf
from datapath.entries import IPAddress
from datapath.layout import EVENTS, EVENTS_SIZE, DropReason, Family
from datapath.policylayout import Event

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER = 8


@dataclass(frozen=True, slots=True)
class PacketEvent:
    """A verdict on a packet; `reason` NONE: a new connection was allowed. `direction`: 0 ingress, 1 egress.

    `netns`: cookie of the network namespace of a socket that was refused, whose source is not known; 0 for packets.
    """

    time_ns: int
    reason: DropReason
    direction: int
    subject: int
    peer: int
    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int
    port: int
    length: int
    netns: int = 0


class Ring:
    """Records of md_events in a folder of pins. Raises OSError if it is not there. Close it."""

    def __init__(self, folder: Path) -> None:
        self.fd = bpf.get_object(folder / EVENTS)
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(self.fd, page, offset=0)
        self._producer = mmap.mmap(self.fd, page + 2 * EVENTS_SIZE, prot=mmap.PROT_READ, offset=page)
        self._data = page

    def read(self, most: int) -> Iterator[bytes]:
        """At most `most` records, the oldest first; they are taken."""
        (at,) = struct.unpack_from("=Q", self._consumer)
        (end,) = struct.unpack_from("=Q", self._producer)
        while at < end and most:
            start = self._data + (at & (EVENTS_SIZE - 1))
            (header,) = struct.unpack_from("=I", self._producer, start)
            if header & _BUSY:
                break
            length = header & ~(_BUSY | _DISCARDED)
            record = None if header & _DISCARDED else self._producer[start + _HEADER : start + _HEADER + length]
            at += (length + _HEADER + 7) & ~7
            struct.pack_into("=Q", self._consumer, 0, at)
            if record is not None:
                most -= 1
                yield record

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()
        os.close(self.fd)


def parse_event(record: bytes) -> PacketEvent:
    e = Event.from_buffer_copy(record)
    reasons = set(DropReason)
    return PacketEvent(
        time_ns=e.time_ns,
        reason=DropReason(e.reason) if e.reason in reasons else DropReason.INVALID,
        direction=e.direction,
        subject=e.subject,
        peer=e.peer,
        source=_address(e.family, bytes(e.source)),
        destination=_address(e.family, bytes(e.destination)),
        protocol=e.protocol,
        source_port=e.source_port,
        port=e.destination_port,
        length=e.length,
        netns=e.netns,
    )


def _address(family: int, word: bytes) -> IPAddress:
    return IPv4Address(word[:4]) if family == Family.V4 else IPv6Address(word)
