"""How a node's tunnel is announced and what it costs. Pure.

A node says it in its record's annotation `meshd.io/tunnel: vxlan:8473`; a record without it is Cilium's, and Cilium's
VXLAN has port 8472.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from wire.records import Node

ANNOTATION = "meshd.io/tunnel"
_TEXT = re.compile(r"(vxlan|geneve):([0-9]{1,5})")


class Encapsulation(StrEnum):
    """Both carry 24 bits of identity and take eight bytes behind UDP."""

    VXLAN = "vxlan"
    GENEVE = "geneve"


@dataclass(frozen=True, slots=True, order=True)
class Tunnel:
    """The kind of tunnel that a node's end takes packets from, and its UDP port."""

    encapsulation: Encapsulation
    port: int

    def __str__(self) -> str:
        return f"{self.encapsulation}:{self.port}"

    @property
    def device(self) -> str:
        """The name of the device that sends to such ends; `own_device` is the one of this node's own port."""
        return f"md_{self.encapsulation}{self.port}"

    @property
    def own_device(self) -> str:
        return f"md_{self.encapsulation}"


IPV6_LEAST = 1280
"""A device of fewer bytes is none for IPv6."""
OVERHEAD = {4: 50, 6: 70}
"""Bytes of Ethernet, VXLAN or Geneve, UDP and IP around a packet, by the version of the outer IP."""
DEFAULT = Tunnel(Encapsulation.VXLAN, 8473)
CILIUM = Tunnel(Encapsulation.VXLAN, 8472)


class BadTunnel(ValueError):
    """An announcement that is none; str(error) says what would be one."""


def parse_tunnel(text: str) -> Tunnel:
    """Raises BadTunnel."""
    match = _TEXT.fullmatch(text)
    if match is None or not 1 <= int(match[2]) <= 0xFFFF:
        raise BadTunnel(f"tunnel {text!r} is not vxlan:PORT or geneve:PORT, PORT from 1 to 65535")
    return Tunnel(Encapsulation(match[1]), int(match[2]))


def tunnel_of(node: Node) -> Tunnel:
    """What the node's record announces. Raises BadTunnel."""
    text = (node.annotations or {}).get(ANNOTATION)
    return CILIUM if text is None else parse_tunnel(text)
