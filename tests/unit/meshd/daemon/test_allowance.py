from ipaddress import ip_network

import pytest

from meshd.daemon.allowance import DEFAULT_ALLOWANCE, DEFAULT_QUOTAS, Quota, parse_allowance
from wire.keys import Kind


def test_nothing_said_means_the_defaults() -> None:
    assert parse_allowance({}) == DEFAULT_ALLOWANCE


def test_what_is_said_holds_and_the_rest_stays() -> None:
    allowance = parse_allowance(
        {
            "allowed-cidrs": ["20.0.0.0/16", "fd00::/64"],
            "allowed-namespaces": ["shop"],
            "quotas": {"ip": {"records": 10}},
            "stale-after": "90s",
            "max-stale": "1.5h",
        }
    )
    assert allowance.cidrs == (ip_network("20.0.0.0/16"), ip_network("fd00::/64"))
    assert allowance.namespaces == frozenset({"shop"})
    assert allowance.quotas[Kind.IP] == Quota(10, DEFAULT_QUOTAS[Kind.IP].bytes)
    assert allowance.quotas[Kind.NODE] == DEFAULT_QUOTAS[Kind.NODE]
    assert (allowance.stale_after_s, allowance.max_stale_s) == (90.0, 5400.0)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"allowed-cidrs": "20.0.0.0/16"}, "must be a list"),
        ({"allowed-cidrs": ["20.0.0.1/16"]}, "host bits"),
        ({"stale-after": "soon"}, "must be a duration"),
        ({"stale-after": True}, "must be a duration"),
        ({"stale-after": "2h", "max-stale": "1h"}, "must not be less"),
        ({"quotas": {"pods": {}}}, "no such kind"),
        ({"quotas": {"ip": {"record": 1}}}, "mapping with"),
        ({"quotas": {"ip": {"records": -1}}}, "at least 0"),
        ({"quotas": 5}, "must be a mapping"),
    ],
)
def test_what_cannot_be_is_named(document: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_allowance(document)
