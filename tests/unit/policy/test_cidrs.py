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


def test_a_number_that_was_found_is_not_given_to_another_before_its_prefix_comes() -> None:
    numbers = CidrNumbers()
    networks = [ip_network(f"192.0.2.{n}/32") for n in range(3)]
    numbers.restore({networks[0]: FIRST, networks[1]: LAST})
    assert numbers.use([networks[2]]) == {networks[2]: FIRST + 1}
    assert numbers.use(networks[:2]) == {networks[0]: FIRST, networks[1]: LAST}
