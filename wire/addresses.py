"""Addresses as text, read once: few nodes carry all pods, and several ask about the pod that was just heard of."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

KEPT = 1 << 13
LONGEST = 64  # characters; with a scope, which nobody needs, an IPv6 address may have as many as one likes


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """Raises ValueError."""
    if len(text) > LONGEST:
        raise ValueError(f"an address of {len(text)} characters")
    return _parse(text)


_parse = lru_cache(KEPT)(ip_address)
