"""Connections that stand while a service changes, on the testbed with everything running: who is connected stays so.

cluster1-node2 ── frontend-1 ──▶ ClusterIP 30.1.1.1 ──▶ rebel-base-1, -2 of cluster1 and of cluster2
"""

import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import BinaryIO, cast

import pytest

from meshd.testbed import netns
from meshd.testbed.testbed import Testbed
from tests.support.netns import joined
from tests.support.waiting import until

pytestmark = pytest.mark.root
FRONTEND, PATIENCE_S = ("30.1.1.1", 80), 20.0
GLOBAL, DRAIN = "service.cilium.io/global", "meshd.io/drain-clusters"
CLUSTERS = {"cluster1", "cluster2"}
BOTH_WAYS = pytest.mark.parametrize("hooked", [True, False], ids=["socket", "packets"])
MANY = 40  # that one of two clusters has none of so many by chance happens once in 10^12


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    testbed = Testbed(f"s{secrets.token_hex(3)}")
    try:
        testbed.up()
        yield testbed
    finally:
        testbed.down()


def annotate(bed: Testbed, key: str, value: str | None, clusters: Iterable[str] = ("cluster1",)) -> None:
    for cluster in clusters:
        bed.annotate(cluster, "Service", "rebel-base", key, value)


def opened(bed: Testbed, stack: ExitStack, *, hooked: bool) -> BinaryIO:
    """A connection of the pod through the frontend, by its sockets' hooks or per packet, until the stack's end."""
    pod = bed.layout.pod("cluster1", "default", "frontend-1")
    with joined(bed.cgroups / "cluster1-node2") if hooked else nullcontext():
        made = netns.inside(pod, partial(socket.create_connection, FRONTEND, PATIENCE_S))
    return cast(BinaryIO, stack.enter_context(stack.enter_context(made).makefile("rwb")))


def asked(connection: BinaryIO) -> str:
    """Who answers there: `cluster/pod`."""
    connection.write(b"word\n")
    connection.flush()
    pod, word = connection.readline().split()
    assert word == b"word"
    return pod.decode()


def new_ones_reach(bed: Testbed, clusters: set[str], *, hooked: bool) -> None:
    """Returns when so many new connections are answered by these clusters; none of any try may fail."""

    def found() -> set[str]:
        with ExitStack() as stack:
            return {asked(opened(bed, stack, hooked=hooked)).partition("/")[0] for _ in range(MANY)}

    until(lambda: found() == clusters, clusters)


@BOTH_WAYS
def test_a_service_becomes_global_and_its_cluster_is_drained(bed: Testbed, hooked: bool) -> None:
    with ExitStack() as stack:

        def connected() -> list[tuple[BinaryIO, str]]:
            connections = [opened(bed, stack, hooked=hooked) for _ in range(MANY)]
            return [(each, asked(each)) for each in connections]

        new_ones_reach(bed, {"cluster1"}, hooked=hooked)
        standing = connected()  # kube-proxy's
        annotate(bed, GLOBAL, "true", CLUSTERS)
        new_ones_reach(bed, CLUSTERS, hooked=hooked)
        assert [asked(each) for each, _ in standing] == [pod for _, pod in standing]
        standing += connected()
        annotate(bed, DRAIN, "cluster2")
        new_ones_reach(bed, {"cluster1"}, hooked=hooked)
        assert [asked(each) for each, _ in standing] == [pod for _, pod in standing]
        annotate(bed, DRAIN, None)
        new_ones_reach(bed, CLUSTERS, hooked=hooked)
        annotate(bed, GLOBAL, None, CLUSTERS)
        new_ones_reach(bed, {"cluster1"}, hooked=hooked)
        assert [asked(each) for each, _ in standing] == [pod for _, pod in standing]
