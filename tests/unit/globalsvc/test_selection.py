from ipaddress import ip_address

import pytest

from globalsvc.annotations import Affinity
from globalsvc.backend import Backend, Offer
from globalsvc.selection import Rules, select
from wire.local import BackendState

OWN, REMOTE = True, False


@pytest.mark.parametrize(
    ("affinity", "backends", "used"),
    [
        ("none", [(OWN, "active"), (REMOTE, "active")], [1, 1]),
        ("none", [(OWN, "not-ready"), (REMOTE, "active")], [0, 1]),
        ("none", [(OWN, "terminating"), (REMOTE, "active")], [0, 1]),
        ("none", [(OWN, "terminating"), (OWN, "not-ready")], [1, 0]),
        ("none", [], []),
        ("local", [(OWN, "active"), (REMOTE, "active")], [1, 0]),
        ("local", [(OWN, "not-ready"), (REMOTE, "active")], [0, 1]),
        ("local", [(OWN, "terminating"), (REMOTE, "active")], [0, 1]),
        ("local", [(OWN, "terminating")], [1]),
        ("remote", [(OWN, "active"), (REMOTE, "active")], [0, 1]),
        ("remote", [(OWN, "active")], [1]),
        ("remote", [(OWN, "terminating"), (OWN, "active")], [0, 1]),
    ],
)
def test_the_table_of_affinity(affinity: str, backends: list[tuple[bool, BackendState]], used: list[int]) -> None:
    offers = [
        Offer(Backend(ip_address("10.0.0.1"), n, "TCP", "c1" if own else "c2"), frozenset(), state, own)
        for n, (own, state) in enumerate(backends, 1)
    ]
    choices = select(offers, Rules(Affinity(affinity))).choices
    assert [int(choice.used) for choice in choices] == used
    assert all(choice.reason for choice in choices)
