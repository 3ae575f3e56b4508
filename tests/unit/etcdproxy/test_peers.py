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


def test_requests_are_limited_for_a_peer_and_for_all() -> None:
    peers = Peers(Limits(peer_requests_per_s=1, peer_requests_burst=5, requests_per_s=1, requests_burst=8))
    a, b = peers.see("a", "remote"), peers.see("b", "remote")
    assert [peers.excess(a) for _ in range(6)] == [""] * 5 + ["requests per second"]
    assert [peers.excess(b) for _ in range(4)] == [""] * 3 + ["requests per second of all"]


def test_what_waits_to_be_sent_is_limited_for_a_peer_and_for_all() -> None:
    peers = Peers(Limits(peer_queued_bytes=100, queued_bytes=150))
    a, b, c = (peers.see(name, "remote") for name in "abc")
    assert not peers.excess_bytes(a, 1000)  # else it could never be answered
    peers.count_queued(a, 90)
    assert peers.excess_bytes(a, 11) == "bytes queued"
    assert not peers.excess_bytes(b, 60)
    peers.count_queued(b, 60)
    assert peers.excess_bytes(c, 1) == "bytes queued"
    peers.count_queued(a, -90)
    assert not peers.excess_bytes(c, 1)
