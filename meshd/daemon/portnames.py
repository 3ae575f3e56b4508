"""The names that pods give to ports, by identity. Pure."""

from collections import defaultdict
from collections.abc import Iterable

from policy.ports import PROTOCOLS
from policy.rulebook import NamedPorts
from wire.records import IP, value_or


class PortNames:
    """Where pods of one identity disagree, a name means all of their numbers."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], tuple[int, frozenset[tuple[int, str, int]]]] = {}
        self._sayers: defaultdict[int, set[tuple[str, str]]] = defaultdict(set)

    def put_all(self, cluster: str, records: Iterable[tuple[str, IP | None]]) -> set[int]:
        """`put` for many addresses, most of which name no ports."""
        touched: set[int] = set()
        for name, record in records:
            if (record is not None and record.named_ports) or (cluster, name) in self._said:
                touched |= self.put((cluster, name), record)
        return touched

    def put(self, who: tuple[str, str], record: IP | None) -> set[int]:
        """What the address (cluster, text) says now; None: it is gone. Returns whose names may mean something else."""
        ports = frozenset(
            (PROTOCOLS[port.protocol], port.name, port.port)
            for port in (value_or(record.named_ports, []) if record else [])
            if port.protocol in PROTOCOLS and port.name and 0 < port.port <= 0xFFFF
        )
        before = self._said.pop(who, None)
        touched = set()
        if before is not None:
            self._sayers[before[0]].discard(who)
            if not self._sayers[before[0]]:
                del self._sayers[before[0]]
            touched.add(before[0])
        if record is not None and ports:
            self._said[who] = (record.id, ports)
            self._sayers[record.id].add(who)
            touched.add(record.id)
        return touched

    def of(self, identity: int) -> NamedPorts:
        """Protocol and name → numbers."""
        names: defaultdict[tuple[int, str], set[int]] = defaultdict(set)
        for who in self._sayers.get(identity, ()):
            for protocol, name, number in self._said[who][1]:
                names[protocol, name].add(number)
        return dict(names)
