"""What two clusters claim is told once, when it begins."""

from meshd.daemon.conflicts import Conflicts
from meshd.daemon.timeline import Timeline
from tests.support import records
from tests.support.world import World
from wire.keys import Kind


def test_a_conflict_is_told_once_for_two_clusters_and_again_when_it_comes_back() -> None:
    world, timeline = World(), Timeline()
    conflicts = Conflicts(world.mesh, timeline)

    def told() -> list[str]:
        world.refresh()
        before = timeline.last
        conflicts.look()
        return [f"{each.cluster}: {each.event}: {each.detail}" for each in timeline.after(before)]

    world.say("cluster2", Kind.IP, records.ip("cluster2", "20.0.0.1", "172.18.2.11", 131073))
    assert told() == []
    world.say("cluster3", Kind.IP, records.ip("cluster3", "20.0.0.1", "172.18.3.11", 196609))
    assert told() == ["cluster3: conflict: it claims 20.0.0.1, where cluster2 is believed"]
    world.say("cluster2", Kind.IP, records.ip("cluster2", "20.0.0.2", "172.18.2.11", 131073))
    world.say("cluster3", Kind.IP, records.ip("cluster3", "20.0.0.2", "172.18.3.11", 196609))
    assert told() == []
    for name in ("20.0.0.1", "20.0.0.2"):
        world.unsay("cluster3", Kind.IP, name)
    assert told() == []
    world.say("cluster3", Kind.NODE, records.node("cluster3", 3, "n1", "172.18.2.11", "40.0.0.0/24"))
    world.say("cluster2", Kind.NODE, records.node("cluster2", 2, "n1", "172.18.2.11", "20.0.0.0/24"))
    assert told() == ["cluster3: conflict: it claims the node address 172.18.2.11, where cluster2 is believed"]


def test_prefixes_that_overlap_are_told() -> None:
    world, timeline = World(), Timeline()
    world.say("cluster2", Kind.NODE, records.node("cluster2", 2, "n1", "172.18.2.11", "20.0.0.0/16"))
    world.say("cluster3", Kind.NODE, records.node("cluster3", 3, "n1", "172.18.3.11", "20.0.7.0/24"))
    world.refresh()
    Conflicts(world.mesh, timeline).look()
    assert [(each.cluster, each.detail) for each in timeline.after(0)] == [
        ("cluster3", "it claims 20.0.7.0/24, where cluster2 is believed")
    ]
