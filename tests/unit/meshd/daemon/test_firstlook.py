"""What a cluster says of itself, read once: wherever it stands."""

import grpc.aio
import pytest

from meshd.daemon.firstlook import _read
from tests.support import records
from tests.support.etcd import Etcd
from tests.support.etcd import etcd as etcd
from wire.keys import Kind, Layout, cluster_config, record

pytestmark = pytest.mark.etcd


@pytest.mark.parametrize("layout", list(Layout))
async def test_nodes_services_and_counts_are_read_where_the_cluster_keeps_them(etcd: Etcd, layout: Layout) -> None:
    said = {
        Kind.NODE: records.node("cluster2", 2, "n1", "172.18.2.11", "20.0.0.0/24"),
        Kind.SERVICE: records.service("cluster2", 2, "default/web", "20.0.0.1"),
        Kind.IP: records.ip("cluster2", "20.0.0.1", "172.18.2.11", 131073),
    }
    names = {Kind.NODE: "n1", Kind.SERVICE: "default/web", Kind.IP: "20.0.0.1"}
    cached = "true" if layout is Layout.CACHE else "false"
    etcd.put(cluster_config("cluster2"), f'{{"id":2,"capabilities":{{"cached":{cached}}}}}')
    for kind, name in names.items():
        (value,) = said[kind].values()
        etcd.put(record(kind, "cluster2", name, layout), value)
    async with grpc.aio.insecure_channel(etcd.address) as channel:
        heard = await _read(channel, "cluster2")
    assert (heard.problem, [node.name for node in heard.nodes]) == ("", ["n1"])
    assert heard.counts == {Kind.IP: 1, Kind.SERVICE: 1, Kind.IDENTITY: 0}
