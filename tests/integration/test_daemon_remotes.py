"""Remote clusters that come, change and leave under a running daemon, their files written as Kubernetes writes them."""

import asyncio
from ipaddress import ip_address
from pathlib import Path

import pytest

from datapath.entries import ipcache_entry
from datapath.layout import AddrKey
from meshd.daemon import mesh
from meshd.daemon.link import LinkState
from meshd.daemon.members import IdTaken
from meshd.daemon.program import Daemon
from meshd.daemon.report import Report
from tests.support import records
from tests.support.kernel import no_faults
from tests.support.scene import Scene, until
from tests.support.scene import scene as scene
from wire.keys import Kind, record

pytestmark = pytest.mark.etcd
FRONTEND = "30.1.1.1:80/TCP"
OWN = {"10.0.0.1", "10.0.0.2"}
ALL = OWN | {"20.0.0.1", "20.0.0.2"}
PODS = [f"20.0.1.{host}" for host in range(1, 60)]


def state(daemon: Daemon, cluster: str = "cluster2") -> str:
    """Of its control link, "" if there is no such remote."""
    return next((str(remote.link.state) for remote in daemon.remotes() if remote.cluster == cluster), "")


def addresses(scene: Scene) -> set[str]:
    """Those of cluster2's pods that the ipcache holds."""
    keys = map(AddrKey.from_buffer_copy, scene.maps.content["md_ipcache"])
    held = {str(ip_address(bytes(key.word)[:4])) for key in keys}
    return {address for address in held if address.startswith("20.")}


async def test_cilium_host_aliases_say_where_a_name_is_and_may_change(scene: Scene) -> None:
    path = scene.mesh_folder / "cluster2"
    here = f"127.0.0.1:{scene.two.port}"
    text = path.read_text().replace(here, f"cluster2.mesh.cilium.io:{scene.two.port}")

    def alias(address: str) -> str:
        return f"{text}cilium-host-aliases:\n- hostname: cluster2.mesh.cilium.io\n  ips:\n  - {address}\n"

    path.write_text(alias("127.0.0.9"))
    async with scene.daemon() as daemon:
        await until(lambda: state(daemon) == LinkState.DISCONNECTED)
        assert daemon.remotes()[0].link.target == f"ipv4:127.0.0.9:{scene.two.port}"
        path.write_text(alias("127.0.0.1"))
        await until(lambda: state(daemon) == LinkState.READY)
        await until(lambda: scene.backends() == {FRONTEND: ALL})


def swap(folder: Path, version: str, files: dict[str, str]) -> None:
    """As the kubelet writes a mounted Secret: a new folder, then one rename; links to what is there, no others."""
    (folder / version).mkdir()
    for name, text in files.items():
        (folder / version / name).write_text(text)
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").rename(folder / "..data")
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    for path in folder.iterdir():
        if path.is_symlink() and not path.name.startswith("..") and path.name not in files:
            path.unlink()


async def test_a_mounted_secret_adds_changes_and_removes_a_remote(scene: Scene) -> None:
    path = scene.mesh_folder / "cluster2"
    text = path.read_text()
    path.unlink()
    certificate = {"cluster2.etcd-client.crt": "-----BEGIN CERTIFICATE-----"}
    swap(scene.mesh_folder, "..1", certificate)
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        assert daemon.remotes() == []
        swap(scene.mesh_folder, "..2", {**certificate, "cluster2": text})
        await until(lambda: scene.backends() == {FRONTEND: ALL})
        connects = daemon.remotes()[0].connects
        swap(scene.mesh_folder, "..3", {**certificate, "cluster2": text, "cluster1": text})
        swap(scene.mesh_folder, "..4", {**certificate, "cluster2": text + "meshd: {stale-after: 7s}\n"})
        await until(lambda: daemon.remotes()[0].allowance.stale_after_s == 7.0)
        await until(lambda: state(daemon) == LinkState.READY)
        assert daemon.remotes()[0].connects == connects + 1, "the same content is no change"
        swap(scene.mesh_folder, "..5", certificate)
        await until(lambda: scene.backends() == {FRONTEND: OWN})
        assert daemon.remotes() == []


@pytest.mark.parametrize("peer", ["alive", "dead"])
async def test_a_cluster_may_be_added_again_while_it_is_drained(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, peer: str
) -> None:
    """The drain stands still half-way, as the maps refuse to delete; meanwhile its file is back, and says less."""
    monkeypatch.setattr(mesh, "SLICE", 16)
    path = scene.mesh_folder / "cluster2"
    text = path.read_text()
    stuck = {ipcache_entry(ip_address(pod), identity=0, tunnel=None, remote=True).key for pod in PODS[::2]}
    for pod in PODS:
        scene.two.etcd.put_all(records.ip("cluster2", pod, "172.18.2.11", 131073))
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing and len(addresses(scene)) == len(PODS) + 1)
        if peer == "dead":
            scene.two.kill_proxy()
        scene.maps.fails = lambda op, map, key: op == "delete" and key in stuck
        path.unlink()
        await until(lambda: daemon.maps.retries.failures and len(addresses(scene)) < len(PODS))
        drained = addresses(scene)
        assert drained, "the drain is under way"
        for pod in PODS[:40]:
            scene.two.etcd.delete(record(Kind.IP, "cluster2", pod))
        path.write_text(text)
        await until(lambda: state(daemon) != "")
        if peer == "dead":
            scene.maps.fails = no_faults
            await until(lambda: not addresses(scene) and not scene.maps.content["md_cidrs"])
            assert scene.backends() == {FRONTEND: OWN}
            scene.two.start_proxy()
        await until(lambda: state(daemon) == LinkState.READY)
        await until(lambda: scene.backends() == {FRONTEND: ALL})
        await until(lambda: addresses(scene) >= {"20.0.0.1", *PODS[40:]})
        scene.maps.fails = no_faults
        await until(lambda: addresses(scene) == {"20.0.0.1", *PODS[40:]})
        await until(lambda: not daemon.maps.retries.failures)
        assert len(scene.maps.content["md_cidrs"]) == 1
        assert Report(daemon).status()["state"] == "ok"


async def test_an_id_is_free_when_nothing_of_its_cluster_stands(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing and addresses(scene) == {"20.0.0.1"})
        scene.maps.fails = lambda op, map, key: op == "delete" and map == "md_ipcache"
        (scene.mesh_folder / "cluster2").unlink()
        await until(lambda: bool(daemon.maps.retries.failures) and scene.backends() == {FRONTEND: OWN})
        with pytest.raises(IdTaken, match="was that of cluster2, of which entries still stand"):
            daemon.members.join("cluster3", 2)
        scene.maps.fails = no_faults
        await until(lambda: not daemon.members.leaving)
        assert not addresses(scene)
        daemon.members.join("cluster3", 2)


async def test_a_file_that_comes_and_goes_in_quick_turns_ends_as_it_stands(scene: Scene) -> None:
    path = scene.mesh_folder / "cluster2"
    text = path.read_text()
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        for turn in range(12):
            path.unlink()
            await asyncio.sleep(0.01 * (turn % 4) ** 2)
            path.write_text(text + f"# {turn}\n")
            await asyncio.sleep(0.01 * (turn % 5) ** 2)
        await until(lambda: state(daemon) == LinkState.READY)
        await until(lambda: scene.backends() == {FRONTEND: ALL})
        path.unlink()
        await until(lambda: scene.backends() == {FRONTEND: OWN})
        assert daemon.remotes() == []
        await until(lambda: not addresses(scene))
