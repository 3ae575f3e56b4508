"""Certificates of all ends are rotated under a running daemon: no link is refused, no backend goes."""

from datetime import UTC, datetime
from functools import partial

import pytest

from certs.rotation import Step, rotate_ca
from meshd.daemon.link import LinkState
from tests.support import records
from tests.support.scene import Scene, until
from tests.support.scene import scene as scene

pytestmark = pytest.mark.etcd
FRONTEND = "30.1.1.1:80/TCP"
OWN = {"10.0.0.1", "10.0.0.2"}


def shows(scene: Scene, expected: dict[str, set[str]]) -> bool:
    return scene.backends() == expected


async def test_the_ca_and_all_leaves_are_rotated_under_a_running_daemon(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    leaves = [scene.folder / name for name in ("certs1", "certs2", "cluster1/certs", "cluster2/certs")]
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        remote = next(each for each in daemon.remotes() if each.cluster == "cluster2")
        for number, step in enumerate(Step):
            connects = remote.connects
            rotate_ca(scene.folder / "ca", leaves, step, now=datetime.now(UTC))
            address = f"20.0.0.{10 + number}"
            scene.two.etcd.put_all(records.service("cluster2", 2, "default/rebel-base", address))
            expected = {FRONTEND: OWN | {address}}
            await until(partial(shows, scene, expected))
            assert remote.connects == connects  # the connection that is there lives on
            scene.two.kill_proxy()
            await until(lambda: remote.link.state is LinkState.DISCONNECTED)
            scene.two.start_proxy()
            await until(lambda: remote.link.state is not LinkState.DISCONNECTED)
            await until(lambda: (remote.link.state, remote.link.reason) == (LinkState.READY, ""))
            assert remote.connects > connects
            assert shows(scene, expected)
        assert "certificate reloaded" in [each.event for each in daemon.timeline.after(0) if each.cluster == "cluster2"]
    assert "link disconnected" in caplog.text
    assert "rejected" not in caplog.text
