from etcdproxy.limits import Limits
from etcdproxy.peers import Peers


def test_peers_and_refusals_are_bounded() -> None:
    peers = Peers(Limits())
    busy = peers.see("busy", "remote")
    busy.streams = 1
    for number in range(3000):
        peers.refuse(peers.see(f"p{number}", ""), b"k" * 1000, "no")
    assert len(peers.all()) <= 1001
    assert busy in peers.all()
    assert len(peers.refusals) == 100
    assert peers.refused == {"no": 3000}
    assert len(peers.refusals[-1].key) == 200


def test_a_peer_is_known_by_name() -> None:
    peers = Peers(Limits())
    peers.see("a", "remote").ranges += 1
    peers.see("a", "remote").ranges += 1
    assert [(peer.name, peer.ranges) for peer in peers.all()] == [("a", 2)]


def test_limits_hold_per_peer_and_for_all() -> None:
    peers = Peers(Limits(peer_streams=2, streams=3, peer_watches=1, watches=2))
    a, b = peers.see("a", "remote"), peers.see("b", "remote")
    peers.count_stream(a, 2)
    assert peers.excess_streams(a)
    assert not peers.excess_streams(b)
    peers.count_stream(b, 1)
    assert peers.excess_streams(b)
    peers.count_stream(a, -1)
    assert not peers.excess_streams(b)
    peers.count_watches(a, 1)
    assert peers.excess_watches(a)
    assert not peers.excess_watches(b)
