from meshd.daemon.readiness import EVENTS, Readiness


def test_an_event_is_reached_once_and_keeps_its_time() -> None:
    readiness = Readiness()
    assert readiness.observe({"loaded": True, "local-synced": False}, 1.0) == ["loaded"]
    assert readiness.observe({"loaded": False, "local-synced": True}, 2.0) == ["local-synced"]
    assert readiness.reached == {"loaded": 1.0, "local-synced": 2.0}
    assert readiness.missing == EVENTS[2:]
