"""Addresses as text, read once: few nodes carry all pods, and several ask about the pod that was just heard of."""

from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

KEPT = 1 << 11
LONGEST = 64  # characters; with a scope, which nobody needs, an IPv6 address may have as many as one likes


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """Raises ValueError."""
    if len(text) > LONGEST:
        raise ValueError(f"an address of {len(text)} characters")
    return _parse(text)


@lru_cache(KEPT)
def _parse(text: str) -> IPv4Address | IPv6Address:
    try:
        one, two, three, four = text.split(".")
        return IPv4Address(_OCTETS[one] << 24 | _OCTETS[two] << 16 | _OCTETS[three] << 8 | _OCTETS[four])
    except (ValueError, KeyError):
        return ip_address(text)


_OCTETS = {str(number): number for number in range(256)}
"""All that can stand between the dots: three times as fast as to look at each character."""


@lru_cache(KEPT)
def packed_address(text: str) -> bytes:
    """The 4 or 16 bytes of an address in canonical text. Raises ValueError, also if it could be written otherwise."""
    version6 = ":" in text
    try:
        packed = inet_pton(AF_INET6 if version6 else AF_INET, text)
    except (OSError, ValueError) as error:
        raise ValueError(f"{text[:LONGEST]!r} is not an IP address") from error
    # An IPv4 address can be written in one way only; the C library writes some of IPv6 with dots.
    if version6 and ("." in text or inet_ntop(AF_INET6, packed) != text) and str(ip_address(packed)) != text:
        raise ValueError(f"{text[:LONGEST]!r} is not in canonical form")
    return packed


def packed_addresses(texts: Collection[str]) -> list[bytes]:
    """`packed_address` of very many, in their order."""
    try:
        return [inet_pton(AF_INET, text) for text in texts]
    except (OSError, ValueError):  # IPv6 is among them, or none at all
        return [packed_address(text) for text in texts]


def address_number(text: str) -> tuple[int, int]:
    """IP version and number of an address, in whatever form. Raises ValueError."""
    try:
        return 4, int.from_bytes(inet_pton(AF_INET, text), "big")
    except (OSError, ValueError):
        address = parse_address(text)
        return address.version, int(address)
