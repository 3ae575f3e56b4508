from ipaddress import ip_address

from meshd.daemon.backends import BackendIds, Endpoint, usable
from meshd.daemon.numbers import GRACE_S, NUMBER_MAX


def backend(host: int) -> Endpoint:
    return ip_address(f"10.0.0.{host}"), 8080, 6


def test_a_number_is_shared_by_all_uses_and_freed_with_the_last() -> None:
    ids = BackendIds()
    number, entry = ids.acquire(backend(1), 0.0)
    assert entry is not None
    assert ids.acquire(backend(1), 0.0) == (number, None)
    assert ids.release(backend(1), 0.0) is None
    gone = ids.release(backend(1), 0.0)
    assert gone is not None
    assert gone.key == entry.key


def test_a_freed_number_is_not_given_out_again_soon() -> None:
    ids = BackendIds()
    first, _ = ids.acquire(backend(1), 0.0)
    ids.release(backend(1), 0.0)
    assert ids.acquire(backend(1), 0.0)[0] != first


def test_numbers_survive_a_restart() -> None:
    ids = BackendIds()
    ids.restore({7: backend(1), 9: backend(2)}, 20)
    assert ids.acquire(backend(1), 0.0)[0] == 7
    assert ids.acquire(backend(3), 0.0)[0] == 21


def test_a_number_that_nobody_used_again_becomes_free_after_its_grace() -> None:
    for later, expected in ((0.0, 3), (GRACE_S, 1)):
        ids = BackendIds()
        ids.restore({1: backend(1), 2: backend(2)}, NUMBER_MAX)
        ids.acquire(backend(2), 0.0)
        ids.forget_restored(0.0)
        assert ids.acquire(backend(3), later)[0] == expected


def test_what_no_map_can_hold_is_left_out() -> None:
    address = ip_address("10.0.0.1")
    assert usable([(address, 80, "TCP"), (address, 0, "TCP"), (address, 80, "ICMP")]) == ((address, 80, 6),)
