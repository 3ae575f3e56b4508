"""Which pod owns an address. Two pods may say the same of themselves for a while, when an address moves."""

from collections.abc import Callable, Sequence

from meshd.agent.index import ObjectName


class AddressOwners:
    """A pod that is being deleted gives way to one that is not; among equals the first name wins.

    Nearly every address has one claimant: only the others cost more than an entry.
    """

    def __init__(self, is_terminating: Callable[[ObjectName], bool]) -> None:
        self._is_terminating = is_terminating
        self._sole: dict[str, ObjectName] = {}
        self._contested: dict[str, set[ObjectName]] = {}
        self._addresses: dict[ObjectName, Sequence[str]] = {}  # those of pods with more than one
        self._address: dict[ObjectName, str] = {}

    def claim(self, pod: ObjectName, addresses: Sequence[str]) -> set[str]:
        """These are the pod's addresses now; returns all whose owner has to be looked at again."""
        before = self._forget(pod)
        for ip in before:
            self._drop(ip, pod)
        for ip in addresses:
            self._put(ip, pod)
        if len(addresses) == 1:
            self._address[pod] = addresses[0]
        elif addresses:
            self._addresses[pod] = tuple(addresses)
        return {*before, *addresses}

    def _forget(self, pod: ObjectName) -> Sequence[str]:
        """The addresses that it had."""
        if (single := self._address.pop(pod, None)) is not None:
            return (single,)
        return self._addresses.pop(pod, ())

    def owner(self, ip: str) -> ObjectName | None:
        if ip in self._contested:
            return min(self._contested[ip], key=self._rank)
        return self._sole.get(ip)

    def conflicts(self) -> list[tuple[str, list[str]]]:
        """Every address that several pods claim, with them, the owner first."""
        return [
            (ip, ["/".join(pod) for pod in sorted(pods, key=self._rank)])
            for ip, pods in sorted(self._contested.items())
        ]

    def _rank(self, pod: ObjectName) -> tuple[bool, str]:
        return self._is_terminating(pod), "/".join(pod)

    def _put(self, ip: str, pod: ObjectName) -> None:
        if ip in self._contested:
            self._contested[ip].add(pod)
        elif self._sole.setdefault(ip, pod) != pod:
            self._contested[ip] = {self._sole.pop(ip), pod}

    def _drop(self, ip: str, pod: ObjectName) -> None:
        if (pods := self._contested.get(ip)) is None:
            if self._sole.get(ip) == pod:
                del self._sole[ip]
            return
        pods.discard(pod)
        if len(pods) == 1:
            del self._contested[ip]
            (self._sole[ip],) = pods
