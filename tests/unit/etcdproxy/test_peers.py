from etcdproxy.peers import Peers


def test_peers_and_refusals_are_bounded() -> None:
    peers = Peers()
    busy = peers.see("busy", "remote")
    busy.streams = 1
    for number in range(3000):
        peers.refuse(peers.see(f"p{number}", ""), b"\xff" * 1000, "no")
    assert len(peers.all()) <= 1001
    assert busy in peers.all()
    assert len(peers.refusals) == 100
    assert peers.refused == {"no": 3000}
    assert len(peers.refusals[-1].key) == 200


def test_a_peer_is_known_by_name() -> None:
    peers = Peers()
    peers.see("a", "remote").ranges += 1
    peers.see("a", "remote").ranges += 1
    assert [(peer.name, peer.ranges) for peer in peers.all()] == [("a", 2)]
