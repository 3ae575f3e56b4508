"""Loading, reloading, maps that are full, finding interfaces, and leaving without a trace: on the real kernel."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from datapath import bpf, entries, loader
from datapath.attach import attach_endpoint, attach_tunnel, uses_tcx
from datapath.compile import TC_PROGRAMS
from datapath.hooks import HookError
from datapath.interface import find_endpoint
from datapath.loader import LoadError, LoadSettings, PinMismatch, ensure_loaded
from datapath.maps import MapError, MapFull, Maps
from datapath.pins import Attachment, PinsError
from datapath.source import Source, read_source
from datapath.uninstall import Removed, uninstall
from routing.devices import DeviceError, ensure_vxlan
from tests.support.netns import Machine, joined, link, mac_of, machine
from tests.support.twonodes import TwoNodes, add_service, two_nodes

pytestmark = pytest.mark.root

TCP = socket.IPPROTO_TCP
HOOKS = ("connect4", "connect6", "sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6", "getpeername4", "getpeername6")


@pytest.fixture
def made() -> Iterator[Machine]:
    with machine() as each:
        yield each


@pytest.fixture
def settings(made: Machine, tmp_path: Path) -> LoadSettings:
    return LoadSettings(made.bpffs(tmp_path / "bpf"), f"{made.tag}.x", made.cgroup("x"), {"md_ipcache": 64})


def another_build(monkeypatch: pytest.MonkeyPatch, number: int = 1) -> None:
    """The next load sees sources that differ, as after an upgrade."""

    def changed(*arguments: object) -> Source:
        source = read_source(*arguments)  # type: ignore[arg-type]
        return replace(source, text=f"{source.text}\n/* upgrade {number} */\n")

    monkeypatch.setattr(loader, "read_source", changed)


def test_a_second_load_writes_nothing(settings: LoadSettings) -> None:
    first = ensure_loaded(settings)
    assert first.written == ("programs", *HOOKS)
    ids = {name: first.programs.id(name) for name in HOOKS}
    second = ensure_loaded(settings)
    assert second.written == ()
    assert {name: second.programs.id(name) for name in HOOKS} == ids


def test_hooks_of_a_cgroup_that_was_made_anew_are_attached_again(settings: LoadSettings) -> None:
    ensure_loaded(settings)
    settings.cgroup.rmdir()
    settings.cgroup.mkdir()
    assert ensure_loaded(settings).written == HOOKS
    assert ensure_loaded(settings).written == ()


def test_the_verifier_has_room(settings: LoadSettings) -> None:
    loaded = ensure_loaded(settings)
    steps = {}
    for name in (*TC_PROGRAMS, *HOOKS):
        with bpf.opened(loaded.programs.path(name)) as fd:
            told = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())
        steps[name] = int(told["verified_insns"])
    assert max(steps.values()) <= 500_000, f"of 1 000 000, and kernels differ in what they leave out: {steps}"


def test_an_upgrade_replaces_programs_and_keeps_maps(settings: LoadSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure_loaded(settings)
    with Maps(first.folder) as maps:
        entry = entries.ipcache_entry(ip_address("10.0.0.1"), identity=1, tunnel=None, remote=False)
        maps.upsert(entry.map, {entry.key: entry.value})
        another_build(monkeypatch)
        second = ensure_loaded(settings)
        assert second.build != first.build
        assert second.written == ("programs", *HOOKS)
        assert not first.programs.folder.exists()
        assert maps.dump("md_ipcache") == {entry.key: entry.value}


def test_two_instances_and_a_stranger_share_a_cgroup(settings: LoadSettings) -> None:
    one = ensure_loaded(settings)
    other = ensure_loaded(replace(settings, instance=settings.instance + "2"))
    assert one.folder != other.folder
    shown = subprocess.run(
        ["bpftool", "cgroup", "show", settings.cgroup], capture_output=True, text=True, check=True
    ).stdout
    assert shown.count("connect4") == 2
    uninstall(settings.bpffs, settings.instance)
    shown = subprocess.run(
        ["bpftool", "cgroup", "show", settings.cgroup], capture_output=True, text=True, check=True
    ).stdout
    assert shown.count("connect4") == 1


@pytest.mark.parametrize("attachment", [Attachment.AUTO, Attachment.CLSACT])
def test_upgrades_are_invisible_to_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attachment: Attachment
) -> None:
    """One long connection and a stream of new ones, through the frontend, while everything is replaced."""
    with two_nodes(tmp_path, attachment=attachment) as mesh:
        server = mesh.server.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.bind((str(mesh.server.v4), 0))
        server.listen()
        add_service(mesh.a, "30.1.1.1", 80, TCP, server.getsockname())
        with server, joined(mesh.a.cgroup), _connect(mesh) as client:
            accepted, _ = server.accept()
            with accepted, _connecting(mesh, server) as outcomes:
                for number in range(3):
                    another_build(monkeypatch, number)
                    _upgrade(mesh)
                    client.sendall(b"still here")
                    assert accepted.recv(100) == b"still here"
                    assert client.getpeername() == ("30.1.1.1", 80)
    assert len(outcomes) > 20
    assert set(outcomes) == {"ok"}


def _connect(mesh: TwoNodes) -> socket.socket:
    client = mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.connect(("30.1.1.1", 80))
    return client


@contextmanager
def _connecting(mesh: TwoNodes, server: socket.socket) -> Iterator[list[str]]:
    """Connects again and again in a thread; what became of each attempt."""
    outcomes: list[str] = []
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            try:
                with _connect(mesh):
                    server.accept()[0].close()
                outcomes.append("ok")
            except OSError as error:
                outcomes.append(str(error))

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        thread.join()


def _upgrade(mesh: TwoNodes) -> None:
    """Load the other build and attach it; a second time there is nothing to write."""
    for node in (mesh.a, mesh.b):
        loaded = ensure_loaded(node.settings)
        assert loaded.written == ("programs", *HOOKS)
        for expected in (True, False):
            programs, tunnel = loaded.programs, node.tunnel.ifindex
            assert node.namespace.call(lambda: attach_tunnel(tunnel, programs)) is expected  # noqa: B023
            for pod in node.pods.values():
                port = node.interface(pod.v4).ifindex
                assert node.namespace.call(lambda: attach_endpoint(port, programs)) is expected  # noqa: B023


@pytest.mark.parametrize("map_name", ["md_ipcache", "md_cidrs"])
def test_a_full_map_says_so_and_keeps_what_it_has(settings: LoadSettings, map_name: str) -> None:
    loaded = ensure_loaded(replace(settings, sizes={"md_ipcache": 64, "md_cidrs": 64}))
    items = dict(_many(map_name, 70))
    keys = list(items)
    with Maps(loaded.folder) as maps:
        first = {key: items[key] for key in keys[:60]}
        maps.upsert(map_name, first)
        with pytest.raises(MapFull) as full:
            maps.upsert(map_name, items)
        held = maps.dump(map_name)
        assert len(held) == 64
        assert first.items() <= held.items()
        assert set(full.value.rejected) == items.keys() - held.keys()
        maps.delete(map_name, keys[:10])
        maps.upsert(map_name, {key: items[key] for key in full.value.rejected})


def _many(map_name: str, count: int) -> list[tuple[bytes, bytes]]:
    made = []
    for n in range(count):
        address = ip_address(0x0A000000 + n)
        if map_name == "md_ipcache":
            entry = entries.ipcache_entry(address, identity=n, tunnel=None, remote=True)
        else:
            prefix = ip_network(address)
            entry = entries.cidr_entry(prefix, identity=n, tunnel=None, remote=True)
        made.append((entry.key, entry.value))
    return made


@pytest.mark.parametrize("map_name", ["md_ipcache", "md_cidrs"])
def test_many_entries_are_written_read_and_deleted(settings: LoadSettings, map_name: str) -> None:
    loaded = ensure_loaded(replace(settings, sizes={}))
    items = dict(_many(map_name, 20_000))
    with Maps(loaded.folder) as maps:
        assert maps.dump(map_name) == {}
        maps.upsert(map_name, items)
        maps.upsert(map_name, items)
        assert maps.dump(map_name) == items
        gone = list(items)[::2]
        maps.delete(map_name, gone)
        maps.delete(map_name, items)  # half of them are absent already
        assert maps.dump(map_name) == {}


def test_an_error_names_map_and_operation(settings: LoadSettings) -> None:
    loaded = ensure_loaded(settings)
    with Maps(loaded.folder) as maps, pytest.raises(MapError, match="md_cidrs: upsert failed: Invalid argument"):
        maps.upsert("md_cidrs", {b"\xff" * 24: bytes(24)})
    with Maps(settings.bpffs) as maps, pytest.raises(MapError, match="md_ipcache: open failed: No such file"):
        maps.dump("md_ipcache")


def test_a_map_of_another_size_is_refused(settings: LoadSettings) -> None:
    ensure_loaded(settings)
    with pytest.raises(PinMismatch, match=r"md_ipcache is .*max_entries=64.* expected .*max_entries=65.*uninstall"):
        ensure_loaded(replace(settings, sizes={"md_ipcache": 65}))


def test_bad_settings_are_named(settings: LoadSettings, tmp_path: Path) -> None:
    with pytest.raises(PinsError, match="not in a bpffs: mount one"):
        ensure_loaded(replace(settings, bpffs=tmp_path))
    with pytest.raises(PinsError, match="instance name"):
        ensure_loaded(replace(settings, instance="../x"))
    with pytest.raises(HookError, match=r"connect4 on .*no cgroup v2 folder"):
        ensure_loaded(replace(settings, cgroup=tmp_path))
    with pytest.raises(HookError, match="No such file"):
        ensure_loaded(replace(settings, cgroup=tmp_path / "missing"))
    with pytest.raises(ValueError, match="unknown map md_x"):
        ensure_loaded(replace(settings, sizes={"md_x": 1}))


@pytest.mark.parametrize(
    ("find", "put", "message"),
    [
        ("return deliver(skb, &p, endpoint);", "return nonsense;", "mesh.bpf.c: .*nonsense"),
        ("return deliver(skb, &p, endpoint);", "return endpoint->mac[skb->len];", "from_tunnel: .*verifier"),
    ],
    ids=["compiler", "verifier"],
)
def test_a_program_that_cannot_be_loaded_is_named(
    settings: LoadSettings, monkeypatch: pytest.MonkeyPatch, find: str, put: str, message: str
) -> None:
    def broken(*arguments: object) -> Source:
        source = read_source(*arguments)  # type: ignore[arg-type]
        assert find in source.text
        return replace(source, text=source.text.replace(find, put))

    monkeypatch.setattr(loader, "read_source", broken)
    with pytest.raises(LoadError, match=f"(?s){message}"):
        ensure_loaded(settings)
    monkeypatch.undo()
    assert ensure_loaded(settings).written == ("programs", *HOOKS)


def test_the_port_of_a_bridge_is_found(made: Machine) -> None:
    node, pod = made.namespace("node"), made.namespace("pod")
    link(node, "p1", pod, "eth0")
    node.ip("link", "add", "cni0", "type", "bridge")
    node.ip("link", "set", "cni0", "up")
    node.ip("link", "set", "p1", "master", "cni0")
    node.ip("addr", "add", "10.9.0.1/24", "dev", "cni0")
    pod.ip("addr", "add", "10.9.0.2/24", "dev", "eth0")
    found = node.call(lambda: find_endpoint(ip_address("10.9.0.2")))
    assert found is not None
    assert (found.name, found.mac.hex(":")) == ("p1", mac_of(pod, "eth0"))
    assert found.host_mac.hex(":") == mac_of(node, "p1")
    assert node.call(lambda: find_endpoint(ip_address("10.9.0.3"))) is None
    assert node.call(lambda: find_endpoint(ip_address("10.9.0.1"))) is None
    assert node.call(lambda: find_endpoint(ip_address("192.0.2.1"))) is None


def test_the_tunnel_device_is_made_once_and_conflicts_are_named(made: Machine) -> None:
    node = made.namespace("node")
    first = node.call(lambda: ensure_vxlan(alias="meshd:x"))
    again = node.call(lambda: ensure_vxlan(alias="meshd:x"))
    assert (first.created, again.created, again.ifindex) == (True, False, first.ifindex)
    moved = node.call(lambda: ensure_vxlan(alias="meshd:x", port=8474))
    assert moved.created
    with pytest.raises(DeviceError, match="alias 'meshd:x', expected 'meshd:y'"):
        node.call(lambda: ensure_vxlan(alias="meshd:y"))
    node.ip("link", "add", "theirs", "type", "vxlan", "external", "dstport", "8472")
    node.ip("link", "set", "theirs", "up")
    with pytest.raises(DeviceError, match="port 8472 is held by the device theirs"):
        node.call(lambda: ensure_vxlan(alias="meshd:z", name="md_two", port=8472))
    assert "md_two" not in node.ip("link", "show")


@pytest.mark.parametrize("attachment", [Attachment.AUTO, Attachment.CLSACT])
def test_uninstall_leaves_nothing_of_ours_and_everything_else(tmp_path: Path, attachment: Attachment) -> None:
    with two_nodes(tmp_path, attachment=attachment) as mesh:
        node = mesh.a
        if uses_tcx(node.loaded.programs):  # else ours is there
            node.namespace.run("tc", "qdisc", "add", "dev", "p1", "clsact")
        node.namespace.run(
            "tc", "filter", "add", "dev", "p1", "ingress", "prio", "50", "bpf", "da", "bytecode", "1,6 0 0 4294967295"
        )
        removed = node.namespace.call(lambda: uninstall(node.settings.bpffs, node.settings.instance))
        assert set(removed.filters) == {"p1", "p2", "md_vxlan"}
        assert removed.devices == ("md_vxlan",)
        assert set(removed.hooks) == set(HOOKS)
        assert "v1/md_ipcache" in removed.pins
        assert not (node.settings.bpffs / "meshd" / node.settings.instance.replace(".", "+")).exists()
        assert "pref 50 bpf" in node.namespace.run("tc", "filter", "show", "dev", "p1", "ingress")
        assert "meshd" not in node.namespace.run("tc", "filter", "show", "dev", "p1", "ingress")
        assert "from_pod" not in node.namespace.run("bpftool", "net", "show")
        assert "md_vxlan" not in node.namespace.ip("link", "show")
        shown = subprocess.run(["bpftool", "cgroup", "show", node.cgroup], capture_output=True, text=True, check=True)
        assert "connect4" not in shown.stdout
        assert mesh.b.loaded.folder.exists()
        again = node.namespace.call(lambda: uninstall(node.settings.bpffs, node.settings.instance))
        assert again == Removed((), (), (), ())
