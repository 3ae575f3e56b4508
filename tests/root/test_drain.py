"""A cluster that is drained by annotation, on the testbed with everything running: who is connected stays so.

cluster1-node2 ── frontend-1 ──▶ ClusterIP 30.1.1.1 ──▶ rebel-base-1, -2 of cluster1 and of cluster2
"""

import secrets
import socket
from collections.abc import Iterator
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
DRAIN, SERVICE = "meshd.io/drain-clusters", ("cluster1", "Service", "rebel-base")
MANY = 40  # that one of two clusters has none of so many by chance happens once in 10^12


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    testbed = Testbed(f"d{secrets.token_hex(3)}")
    try:
        testbed.up()
        for cluster in ("cluster1", "cluster2"):
            testbed.annotate(cluster, *SERVICE[1:], "service.cilium.io/global", "true")
        yield testbed
    finally:
        testbed.down()


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


def clusters_of_new(bed: Testbed, *, hooked: bool) -> set[str]:
    with ExitStack() as stack:
        return {asked(opened(bed, stack, hooked=hooked)).partition("/")[0] for _ in range(MANY)}


@pytest.mark.parametrize("hooked", [True, False], ids=["socket", "packets"])
def test_a_drained_cluster_keeps_its_connections_and_gets_no_new_ones(bed: Testbed, hooked: bool) -> None:
    both = {"cluster1", "cluster2"}
    until(lambda: clusters_of_new(bed, hooked=hooked) == both, "both clusters")
    with ExitStack() as stack:
        connections = [opened(bed, stack, hooked=hooked) for _ in range(MANY)]
        before = [asked(each) for each in connections]
        assert {pod.partition("/")[0] for pod in before} == both
        bed.annotate(*SERVICE, DRAIN, "cluster2")
        try:
            until(lambda: clusters_of_new(bed, hooked=hooked) == {"cluster1"}, "no new connection to cluster2")
            assert [asked(each) for each in connections] == before
            assert clusters_of_new(bed, hooked=hooked) == {"cluster1"}
        finally:
            bed.annotate(*SERVICE, DRAIN, None)
        until(lambda: clusters_of_new(bed, hooked=hooked) == both, "both clusters again")
        assert [asked(each) for each in connections] == before
