"""The tc programs on interfaces, by TCX links and by clsact filters: once, in order, replaced in place."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from datapath import bpf
from datapath.attach import ENDPOINT, attach_endpoint, attach_network, attached, detach
from datapath.enforcement import POLICY, enforce, relax
from datapath.loader import LoadSettings, ensure_loaded
from datapath.pins import Attachment, Programs
from datapath.places import AttachError, Side
from datapath.tcx import has_tcx, path_of
from datapath.uninstall import uninstall
from tests.support.netns import Machine, Namespace, machine

pytestmark = pytest.mark.root

BOTH = (Attachment.TCX, Attachment.CLSACT)
OTHER = {Attachment.TCX: Attachment.CLSACT, Attachment.CLSACT: Attachment.TCX}


@pytest.fixture(scope="module")
def made() -> Iterator[Machine]:
    with machine() as each:
        yield each


@pytest.fixture(scope="module")
def settings(made: Machine, tmp_path_factory: pytest.TempPathFactory) -> LoadSettings:
    return LoadSettings(made.bpffs(tmp_path_factory.mktemp("attach") / "bpf"), f"{made.tag}.x", made.cgroup("x"))


@pytest.fixture(scope="module")
def programs(settings: LoadSettings) -> Programs:
    if not has_tcx():
        pytest.skip("this kernel has no TCX (6.6); all other tests attach by clsact here")
    return ensure_loaded(settings).programs


@pytest.fixture(scope="module")
def node(made: Machine) -> Namespace:
    return made.namespace("node")


@pytest.fixture
def port(node: Namespace) -> Iterator[int]:
    """The number of an interface of the node."""
    yield add(node)
    node.run("ip", "link", "del", "v0")


def add(node: Namespace, *more: str) -> int:
    node.ip("link", "add", "v0", *more, "type", "veth", "peer", "name", "v1")
    return node.call(lambda: socket.if_nametoindex("v0"))


def names(node: Namespace, ifindex: int, side: Side) -> list[str]:
    """What TCX runs there, in its order."""
    return [bpf.program_name(n) for n in node.call(lambda: bpf.interface_programs(ifindex, side))]


def filters(node: Namespace, device: str = "v0") -> str:
    return "".join(node.run("tc", "filter", "show", "dev", device, side) for side in ("ingress", "egress"))


@pytest.mark.parametrize("attachment", BOTH)
def test_once_is_enough_and_what_is_removed_is_gone(
    node: Namespace, port: int, programs: Programs, attachment: Attachment
) -> None:
    ours = replace(programs, attachment=attachment)
    assert node.call(lambda: attach_endpoint(port, ours))
    assert not node.call(lambda: attach_endpoint(port, ours))
    assert node.call(lambda: attached(port, ours)) == ENDPOINT
    assert ("meshd:" in filters(node)) == (attachment is Attachment.CLSACT)
    assert names(node, port, Side.INGRESS) == (["from_pod"] if attachment is Attachment.TCX else [])
    assert node.call(lambda: detach(port, ours))
    assert not node.call(lambda: detach(port, ours))
    assert node.call(lambda: attached(port, ours)) == ()
    assert (names(node, port, Side.INGRESS), names(node, port, Side.EGRESS)) == ([], [])
    assert "meshd:" not in filters(node)


@pytest.mark.parametrize("attachment", BOTH)
def test_another_build_is_put_in_place_of_the_one_that_is_there(
    node: Namespace, port: int, settings: LoadSettings, programs: Programs, attachment: Attachment
) -> None:
    ours = replace(programs, attachment=attachment)
    node.call(lambda: attach_endpoint(port, ours))
    with another_build(ours) as newer:
        assert node.call(lambda: attach_endpoint(port, newer))
        assert not node.call(lambda: attach_endpoint(port, newer))
        if attachment is Attachment.TCX:
            assert node.call(lambda: bpf.interface_programs(port, Side.INGRESS)) == [newer.id("from_pod")]
        else:
            assert f":from_pod:{newer.id('from_pod')}" in filters(node)
        assert node.call(lambda: detach(port, newer))


@contextmanager
def another_build(programs: Programs) -> Iterator[Programs]:
    """The same programs under other names: to_pod where from_pod was, and the other way round."""
    folder = programs.folder.with_name("other")
    folder.mkdir()
    for old, new in (("from_pod", "to_pod"), ("to_pod", "from_pod")):
        with bpf.opened(programs.path(old)) as fd:
            bpf.pin_object(fd, folder / new)
    try:
        yield replace(programs, folder=folder)
    finally:
        for name in ENDPOINT:
            (folder / name).unlink()
        folder.rmdir()


@pytest.mark.parametrize("policy_first", [False, True])
def test_policy_runs_before_the_ways(node: Namespace, port: int, programs: Programs, policy_first: bool) -> None:
    steps = [partial(attach_endpoint, port, programs), partial(enforce, port, programs)]
    for step in reversed(steps) if policy_first else steps:
        assert node.call(step)
    assert names(node, port, Side.INGRESS) == ["policy_out", "from_pod"]
    assert names(node, port, Side.EGRESS) == ["policy_in", "to_pod"]
    assert node.call(lambda: attached(port, programs)) == (*ENDPOINT, *POLICY)
    assert node.call(lambda: relax(port, programs))
    assert not node.call(lambda: relax(port, programs))
    assert node.call(lambda: attached(port, programs)) == ENDPOINT


@pytest.mark.parametrize("attachment", BOTH)
def test_what_the_other_way_left_is_taken_over(
    node: Namespace, port: int, programs: Programs, attachment: Attachment
) -> None:
    """As when a node gets another kernel, or another setting."""
    earlier, ours = replace(programs, attachment=OTHER[attachment]), replace(programs, attachment=attachment)
    for each in (earlier, ours):
        assert node.call(lambda: attach_endpoint(port, each))  # noqa: B023
        assert node.call(lambda: enforce(port, each))  # noqa: B023
    both = len(names(node, port, Side.INGRESS)), filters(node).count("meshd:")
    assert both == ((2, 0) if attachment is Attachment.TCX else (0, 4))


def test_a_link_whose_interface_is_gone_is_replaced(node: Namespace, programs: Programs) -> None:
    """Another interface with the same number gets its own; one with another number removes the pin."""
    gone = add(node)
    node.call(lambda: attach_endpoint(gone, programs))
    node.ip("link", "del", "v0")
    assert add(node, "index", str(gone)) == gone
    assert node.call(lambda: attached(gone, programs)) == ()
    assert node.call(lambda: attach_endpoint(gone, programs))
    assert names(node, gone, Side.INGRESS) == ["from_pod"]
    node.ip("link", "del", "v0")
    other = add(node, "index", str(gone + 1000))
    assert path_of(programs.interfaces, gone, "from_pod").exists()
    node.call(lambda: attach_endpoint(other, programs))
    assert sorted(path.name for path in programs.interfaces.iterdir()) == [f"{other}-from_pod", f"{other}-to_pod"]
    node.ip("link", "del", "v0")


def test_others_on_the_same_side_stay_and_run(node: Namespace, port: int, programs: Programs) -> None:
    """Theirs are before ours if they came first, after ours if they came later."""
    theirs: list[int] = []
    for _ in range(2):
        with bpf.opened(programs.path("to_tunnel" if theirs else "from_tunnel")) as fd:
            theirs.append(node.call(lambda: bpf.create_tcx_link(fd, port, Side.INGRESS)))
        node.call(lambda: attach_network(port, programs))
    assert names(node, port, Side.INGRESS) == ["from_tunnel", "from_network", "to_tunnel"]
    assert node.call(lambda: detach(port, programs))
    assert names(node, port, Side.INGRESS) == ["from_tunnel", "to_tunnel"]
    for fd in theirs:
        os.close(fd)


@pytest.mark.parametrize("attachment", BOTH)
def test_another_instance_is_left_alone(
    made: Machine, node: Namespace, port: int, settings: LoadSettings, programs: Programs, attachment: Attachment
) -> None:
    ours = replace(programs, attachment=attachment)
    loaded = ensure_loaded(replace(settings, instance=f"{settings.instance}2", attachment=attachment))
    assert node.call(lambda: attach_endpoint(port, ours))
    with pytest.raises(AttachError, match=r"held by 'meshd:|another instance"):
        node.call(lambda: attach_endpoint(port, loaded.programs))
    assert not node.call(lambda: detach(port, loaded.programs))
    node.call(lambda: uninstall(settings.bpffs, f"{settings.instance}2"))
    assert node.call(lambda: attached(port, ours)) == ENDPOINT


@pytest.mark.parametrize("attachment", BOTH)
def test_an_interface_that_is_not_there_is_named(node: Namespace, programs: Programs, attachment: Attachment) -> None:
    with pytest.raises(AttachError, match=r"interface 9999: .*the interface may be gone"):
        node.call(lambda: attach_endpoint(9999, replace(programs, attachment=attachment)))


def test_tcx_that_the_kernel_lacks_is_named_and_auto_does_without(
    node: Namespace, port: int, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datapath.attach.has_tcx", lambda: False)
    with pytest.raises(AttachError, match=r"tcx: this kernel has no TCX.*use 'auto'"):
        node.call(lambda: attach_endpoint(port, replace(programs, attachment=Attachment.TCX)))
    assert node.call(lambda: attach_endpoint(port, programs))
    assert filters(node).count("meshd:") == 2


def test_uninstall_finds_what_both_ways_attached(
    node: Namespace, port: int, settings: LoadSettings, programs: Programs, tmp_path: Path
) -> None:
    """Last: the programs are gone."""
    node.call(lambda: attach_endpoint(port, replace(programs, attachment=Attachment.CLSACT)))
    peer = node.call(lambda: socket.if_nametoindex("v1"))
    node.call(lambda: attach_endpoint(peer, programs))
    removed = node.call(lambda: uninstall(settings.bpffs, settings.instance))
    assert set(removed.filters) == {"v0", "v1"}
    assert "meshd:" not in filters(node) + filters(node, "v1")
    assert names(node, peer, Side.INGRESS) == []
