"""Who claims what is believed of another: told when it begins, once for each two clusters, however much is claimed."""

from collections.abc import Iterator
from itertools import islice

from meshd.daemon.mesh import Mesh
from meshd.daemon.timeline import Timeline

LOOKED_AT = 1000
"""Of each kind: a cluster may claim as many as it has records."""


class Conflicts:
    """`look` now and then."""

    def __init__(self, mesh: Mesh, timeline: Timeline) -> None:
        self._mesh, self._timeline = mesh, timeline
        self._told: frozenset[tuple[str, str]] = frozenset()

    def look(self) -> None:
        found = {(loser, winner): what for what, winner, loser in self._claims()}
        for loser, winner in found.keys() - self._told:
            what = found[loser, winner]
            self._timeline.note("conflict", loser, f"it claims {what}, where {winner} is believed", bad=True)
        self._told = frozenset(found)

    def _claims(self) -> Iterator[tuple[str, str, str]]:
        """What, who is believed, who is not."""
        mesh = self._mesh
        for address, clusters in islice(mesh.addresses.conflicts(), LOOKED_AT):
            yield from ((str(address), clusters[0], loser) for loser in clusters[1:])
        for end, nodes in islice(mesh.nodes.conflicts(), LOOKED_AT):
            first, *others = (node.partition("/")[0] for node in nodes)
            yield from ((f"the node address {end}", first, loser) for loser in others if loser != first)
        for prefix, (loser, winner) in islice(mesh.prefixes.blocked.items(), LOOKED_AT):
            yield str(prefix), winner, loser
