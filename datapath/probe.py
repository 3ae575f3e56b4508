"""The probe of the way between two nodes: the payload of a UDP packet to the other's tunnel port (VXLAN or Geneve
header, frame of a type of its own), and the frame that comes back. Pure; bpf/probe.h is the one that answers.
"""

import struct

ETHER_TYPE = 0x88B5
REQUEST, REPLY = 1, 2
_VNI = 4  # the reserved identity "health"
_HEADERS = {
    "vxlan": struct.pack("!II", 0x08000000, _VNI << 8),  # RFC 7348: the VNI is valid
    "geneve": struct.pack("!HHI", 0, 0x6558, _VNI << 8),  # RFC 8926: no options, an Ethernet frame follows
}
_MACS = bytes.fromhex("020000000002020000000001")  # no device's own: VXLAN drops frames that come from itself
_BODY = struct.Struct("!B3xIQ")
_PADDING = bytes(30)


def encode_request(number: int, cookie: int, *, kind: str = "vxlan", size: int = 0) -> bytes:
    """What is sent to the tunnel port of a `vxlan` or `geneve` device, `size` bytes at least. `cookie` is 64 bits that
    only the sender knows.
    """
    request = _HEADERS[kind] + _MACS + struct.pack("!H", ETHER_TYPE) + _BODY.pack(REQUEST, number, cookie) + _PADDING
    return request.ljust(size, b"\0")


def decode_reply(payload: bytes, cookie: int) -> int | None:
    """The number of the request that this answers, None if it is no answer. `payload`: after the Ethernet header."""
    if len(payload) < _BODY.size:
        return None
    operation, number, seen = _BODY.unpack_from(payload)
    return int(number) if (operation, seen) == (REPLY, cookie) else None
