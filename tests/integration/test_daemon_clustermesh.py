"""The clustermesh folder under a running daemon: files come, change and go; bad ones are named and cost nobody else."""

from datetime import UTC, datetime, timedelta

import pytest

from certs.leaves import issue
from certs.names import Kind as LeafKind
from certs.names import Leaf
from meshd.daemon.link import LinkState
from meshd.daemon.program import Daemon
from meshd.daemon.report import Report
from tests.support.proxied import new_authority
from tests.support.scene import Scene, until
from tests.support.scene import scene as scene

pytestmark = pytest.mark.etcd
FRONTEND = "30.1.1.1:80/TCP"
OWN = {"10.0.0.1", "10.0.0.2"}
ALL = OWN | {"20.0.0.1", "20.0.0.2"}


def link(daemon: Daemon, cluster: str) -> tuple[str, str]:
    """State and reason of a remote's control link, empty if there is none."""
    states = [(remote.link.state, remote.link.reason) for remote in daemon.remotes() if remote.cluster == cluster]
    return states[0] if states else ("", "")


async def test_a_file_that_goes_takes_its_cluster_along_and_may_come_back(scene: Scene) -> None:
    text = (scene.mesh_folder / "cluster2").read_text()
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        (scene.mesh_folder / "cluster2").unlink()
        await until(lambda: scene.backends() == {FRONTEND: OWN})
        await until(lambda: not scene.maps.content["md_cidrs"] and len(scene.maps.content["md_ipcache"]) == 2)
        assert [entry["cluster"] for entry in Report(daemon).status()["clusters"]] == ["cluster1"]
        (scene.mesh_folder / "cluster2").write_text(text)
        await until(lambda: scene.backends() == {FRONTEND: ALL})


async def test_a_dead_cluster_can_leave(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        scene.two.stop()
        (scene.mesh_folder / "cluster2").unlink()
        await until(lambda: scene.backends() == {FRONTEND: OWN})


async def test_changed_content_connects_anew_and_takes_nothing_away(scene: Scene) -> None:
    path = scene.mesh_folder / "cluster2"
    text = path.read_text()
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        path.write_text(text + "meshd: {server-name: cluster9.mesh.cilium.io}\n")
        await until(lambda: link(daemon, "cluster2")[0] == LinkState.REJECTED)
        assert "TLS" in link(daemon, "cluster2")[1]
        assert scene.backends() == {FRONTEND: ALL}
        path.write_text(text + "meshd: {server-name: cluster2.mesh.cilium.io}\n")
        await until(lambda: link(daemon, "cluster2")[0] == LinkState.READY)


async def test_a_file_that_cannot_be_parsed_is_named_and_the_rest_works(scene: Scene) -> None:
    (scene.mesh_folder / "cluster3").write_text("endpoints: [")
    async with scene.daemon() as daemon:
        await until(lambda: "reconciled" in daemon.readiness.reached)
        status = Report(daemon).status()
        assert status["state"] == "degraded"
        assert "is not YAML" in status["clustermesh_problems"]["cluster3"]
        assert scene.backends() == {FRONTEND: ALL}


async def test_a_file_that_becomes_unusable_does_not_make_its_cluster_leave(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        (scene.mesh_folder / "cluster2").write_text("endpoints: [")
        await until(lambda: "cluster2" in Report(daemon).status()["clustermesh_problems"])
        assert scene.backends() == {FRONTEND: ALL}
        assert link(daemon, "cluster2")[0] == LinkState.READY


async def test_a_missing_certificate_is_named_and_used_once_it_is_there(scene: Scene) -> None:
    path = scene.mesh_folder / "cluster2"
    text = path.read_text()
    certificate = scene.folder / "certs2" / "remote-cluster1" / "tls.crt"
    late = scene.folder / "late.crt"
    path.write_text(text.replace(str(certificate), str(late)))
    async with scene.daemon() as daemon:
        await until(lambda: link(daemon, "cluster2")[0] == LinkState.REJECTED)
        assert link(daemon, "cluster2")[1] == f"{late} cannot be read: No such file or directory"
        await until(lambda: scene.backends() == {FRONTEND: OWN})
        late.write_bytes(certificate.read_bytes())
        await until(lambda: scene.backends() == {FRONTEND: ALL})


@pytest.mark.parametrize("fault", ["another CA", "expired"])
async def test_a_certificate_that_will_not_do_is_a_state_with_a_reason(scene: Scene, fault: str) -> None:
    now = datetime.now(UTC)
    authority = new_authority(scene.folder / "other") if fault == "another CA" else scene.authority
    then = now - timedelta(days=200) if fault == "expired" else now
    folder = issue(authority, Leaf(LeafKind.REMOTE, "cluster1"), scene.folder / "bad", now=then)
    path = scene.mesh_folder / "cluster2"
    good = scene.folder / "certs2" / "remote-cluster1"
    text = path.read_text().replace(str(good / "tls.crt"), str(folder / "tls.crt"))
    path.write_text(text.replace(str(good / "tls.key"), str(folder / "tls.key")))
    async with scene.daemon() as daemon:
        await until(lambda: "does it trust our certificate" in link(daemon, "cluster2")[1])
        assert link(daemon, "cluster2")[0] == LinkState.REJECTED
        await until(lambda: scene.backends() == {FRONTEND: OWN})
        findings = " ".join(Report(daemon).status()["findings"])
        assert "cluster2: control link" in findings
        if fault == "expired":
            assert "our certificate ends in -" in findings


async def test_endpoints_are_tried_in_turn(scene: Scene) -> None:
    path = scene.mesh_folder / "cluster2"
    path.write_text(path.read_text().replace("endpoints: [", "endpoints: ['https://127.0.0.1:1', "))
    async with scene.daemon() as daemon:
        await until(lambda: link(daemon, "cluster2")[0] == LinkState.READY)
        await until(lambda: scene.backends() == {FRONTEND: ALL})
