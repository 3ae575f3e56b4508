from ipaddress import ip_network

from policy.cidrs import FIRST, LAST, CidrNumbers

TEN, ELEVEN = ip_network("10.0.0.0/8"), ip_network("11.0.0.0/8")


def test_a_prefix_keeps_its_number_while_it_is_used() -> None:
    numbers = CidrNumbers()
    assert numbers.use([TEN]) == {TEN: FIRST}
    assert numbers.use([TEN, ELEVEN]) == {ELEVEN: FIRST + 1}
    assert numbers.release([TEN]) == {}
    assert numbers.release([TEN, ELEVEN]) == {TEN: FIRST, ELEVEN: FIRST + 1}
    assert numbers.use([TEN]) == {TEN: FIRST + 2}


def test_numbers_that_were_found_are_given_again() -> None:
    numbers = CidrNumbers()
    numbers.restore({TEN: FIRST + 5, ELEVEN: 7})
    assert numbers.use([ELEVEN]) == {ELEVEN: FIRST + 6}
    assert numbers.use([TEN]) == {TEN: FIRST + 5}


def test_after_the_last_number_comes_the_first_that_is_free() -> None:
    numbers = CidrNumbers()
    numbers.restore({TEN: LAST})
    assert numbers.use([TEN, ELEVEN]) == {TEN: LAST, ELEVEN: FIRST}
