"""This node's own addresses, as the kernel lists them for the calling thread's network namespace."""

from ipaddress import IPv6Address
from pathlib import Path

_PROC = Path("/proc/thread-self/net")


def host_addresses(folder: Path = _PROC) -> frozenset[str]:
    """Canonical text, both families, loopback left out. A kernel without IPv6 has no list of its addresses."""
    six = folder / "if_inet6"
    found = _v4((folder / "fib_trie").read_text()) | _v6(six.read_text() if six.exists() else "")
    return frozenset(found - {"127.0.0.1", "::1"})


def _v4(trie: str) -> set[str]:
    """An address stands on a line of its own; what follows says whether it is local."""
    found, address = set(), ""
    for line in trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words == ["/32", "host", "LOCAL"]:
            found.add(address)
    return found


def _v6(table: str) -> set[str]:
    return {str(IPv6Address(bytes.fromhex(line.split()[0]))) for line in table.splitlines() if line}
