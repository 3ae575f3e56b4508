"""What is said of clusters before they are connected."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from meshd.compatibility import SHOWN, findings
from meshd.daemon.firstlook import Heard
from meshd.daemon.servercert import ServerCertificate
from tests.unit.meshd.daemon.test_nodes import record
from wire.keys import Kind
from wire.records import Capabilities, ClusterConfig


def heard(number: int, cidr: str) -> Heard:
    node = record(f"cluster{number}", "n1", f"172.18.{number}.11", cidr)
    return Heard(f"cluster{number}", ClusterConfig(id=number), (node,), heartbeat_age_s=3.0)


ONE, TWO, THREE = heard(1, "10.0.0.0/24"), heard(2, "20.0.0.0/24"), heard(3, "40.0.0.0/24")
SOON = ServerCertificate(("c2",), datetime.now(UTC) + timedelta(days=3, hours=1), by_wildcard=False)
LARGE = ClusterConfig(id=2, capabilities=Capabilities(max_connected_clusters=511))


def with_node(heard: Heard, address: str, cidr: str, tunnel: str = "vxlan:8473") -> Heard:
    return replace(heard, nodes=(*heard.nodes, record(heard.cluster, "n2", address, cidr, tunnel)))


ROWS = [
    ("all is well", TWO, []),
    ("not reached", Heard("cluster2", problem="10.0.0.1:2379: connection refused"), ["cluster2: 10.0.0.1:2379"]),
    ("same ID", replace(TWO, config=ClusterConfig(id=1)), ["cluster1 and cluster2 have the same ID 1"]),
    ("other numbering", replace(TWO, config=LARGE), ["it is cluster1, cluster3: 255; cluster2: 511"]),
    (
        "equal",
        with_node(TWO, "172.18.2.12", "10.0.0.0/24"),
        ["10.0.0.0/24 of cluster2/n2 overlaps 10.0.0.0/24 of cluster1/n1"],
    ),
    (
        "wider",
        with_node(TWO, "172.18.2.12", "10.0.0.0/16"),
        ["10.0.0.0/24 of cluster1/n1 overlaps 10.0.0.0/16 of cluster2/n2"],
    ),
    (
        "two of others",
        with_node(TWO, "172.18.2.12", "40.0.0.0/24"),
        ["40.0.0.0/24 of cluster3/n1 overlaps 40.0.0.0/24 of cluster2/n2"],
    ),
    (
        "address",
        with_node(TWO, "172.18.3.11", "20.0.1.0/24"),
        ["172.18.3.11 is said by cluster2/n2 and by cluster3/n1"],
    ),
    (
        "tunnel",
        with_node(TWO, "172.18.2.12", "20.0.1.0/24", "gre:1"),
        ["cluster2/n2 announces tunnel 'gre:1' is not vxlan"],
    ),
    (
        "ClusterIP",
        replace(TWO, frontends={"10.0.0.77": "default/db", "30.2.1.1": "default/web", "": "odd/one"}),
        ["ClusterIP 10.0.0.77 of cluster2's default/db lies in PodCIDR 10.0.0.0/24 of cluster1"],
    ),
    ("clock ahead", replace(TWO, heartbeat_age_s=-3600.0), ["cluster2: its clock is 3600 s ahead"]),
    ("clock behind", replace(TWO, heartbeat_age_s=3600.0), ["its last heartbeat is 3600 s old"]),
    ("no heartbeat", replace(TWO, heartbeat_age_s=None), ["cluster2: no heartbeat that can be read"]),
    ("certificate", replace(TWO, certificate=SOON), ["cluster2: its server's certificate ends in 3 days"]),
    ("room", replace(TWO, counts={Kind.IP: 600_000}), ["md_ipcache has room for 524288, all together need 600000"]),
]


@pytest.mark.parametrize(("two", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_findings(two: Heard, expected: list[str]) -> None:
    found = findings([ONE, two, THREE])
    assert len(found) == len(expected), found
    assert all(part in text for part, text in zip(expected, found, strict=True)), found


def test_many_of_a_sort_are_counted() -> None:
    nodes = tuple(record("cluster2", f"n{n}", f"172.18.2.{n}", f"10.0.{n}.0/24") for n in range(40))
    wide = replace(ONE, nodes=(record("cluster1", "n1", "172.18.1.11", "10.0.0.0/16"),))
    found = findings([wide, replace(TWO, nodes=nodes)])
    assert len(found) == SHOWN + 1
    assert found[-1] == f"and {40 - SHOWN} more PodCIDRs of cluster1 and cluster2 overlap"
