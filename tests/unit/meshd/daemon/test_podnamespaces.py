"""Namespaces are looked for when one is asked about that is not known, and not all the time."""

from ipaddress import ip_address

from meshd.daemon.podnamespaces import Found, PodNamespaces

POD = ip_address("10.0.0.1")


async def test_what_is_not_known_is_looked_for_once_in_a_while() -> None:
    asked = 0

    def find() -> Found:
        nonlocal asked
        asked += 1
        return {7: frozenset({POD})}

    namespaces = PodNamespaces(find)
    await namespaces.learn([])
    assert (asked, sorted(namespaces.addresses(7))) == (0, [])
    await namespaces.learn([7, 8])
    assert (asked, sorted(namespaces.addresses(7)), sorted(namespaces.addresses(8))) == (1, [POD], [])
    for _ in range(10):
        await namespaces.learn([7, 8])
    assert asked == 1
