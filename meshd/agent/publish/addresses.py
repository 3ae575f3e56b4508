"""Which pod owns an address. Two pods may say the same of themselves for a while, when an address moves."""

from collections.abc import Callable

from identity.claims import Claims
from meshd.agent.index import ObjectName


class AddressOwners:
    """A pod that is being deleted gives way to one that is not; among equals the first name wins."""

    def __init__(self, is_terminating: Callable[[ObjectName], bool]) -> None:
        self._claims: Claims[str, ObjectName] = Claims(lambda claimant: (is_terminating(_name(claimant)),))
        self._addresses: dict[ObjectName, list[str]] = {}

    def claim(self, pod: ObjectName, addresses: list[str]) -> set[str]:
        """These are the pod's addresses now; returns all whose owner has to be looked at again."""
        claimant = "/".join(pod)
        before = self._addresses.pop(pod, [])
        for ip in before:
            self._claims.drop(ip, claimant)
        for ip in addresses:
            self._claims.put(ip, claimant, pod)
        if addresses:
            self._addresses[pod] = addresses
        return {*before, *addresses}

    def owner(self, ip: str) -> ObjectName | None:
        winner = self._claims.winner(ip)
        return winner[1] if winner else None

    def conflicts(self) -> list[tuple[str, list[str]]]:
        """Every address that several pods claim, with them, the owner first."""
        return sorted(self._claims.conflicts())


def _name(claimant: str) -> ObjectName:
    namespace, _, name = claimant.partition("/")
    return namespace, name
