"""`meshd explain service` and `meshd service list` on a daemon between two real clusters; a full map."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from datapath.layout import MAPS
from meshd.cli import program
from meshd.daemon.report import Report
from tests.support import records
from tests.support.kernel import no_faults
from tests.support.scene import Scene, until
from tests.support.scene import scene as scene

pytestmark = pytest.mark.etcd
FRONTEND = "30.1.1.1:80/TCP"


async def ask(scene: Scene, *words: str) -> Result:
    """The command line, in a thread: the daemon answers from this one."""
    arguments = [*words, "--run-dir", str(scene.folder / "run")]
    return await asyncio.to_thread(CliRunner().invoke, program, arguments)


async def explained(scene: Scene) -> dict[str, tuple[bool, str]]:
    result = await ask(scene, "explain", "service", "default/rebel-base", "-o", "json")
    (answer,) = json.loads(result.stdout)
    return {each["backend"]: (each["used"], each["reason"]) for each in _backends(answer)}


def _backends(answer: dict[str, Any]) -> list[dict[str, Any]]:
    behind: list[dict[str, Any]] = [each for frontend in answer["frontends"] for each in frontend["backends"]]
    return behind + list(answer["unmatched"])


async def test_explain_gives_the_reason_of_the_selection_and_list_the_numbers(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: len(scene.backends().get(FRONTEND, ())) == 4, "both clusters")
        service = records.local_service("cluster1", "default/rebel-base", "30.1.1.1", "10.0.0.1")
        ((key, text),) = service.items()
        value = json.loads(text)
        value["annotations"] |= {"service.cilium.io/affinity": "local", "meshd.io/zone-hints": "perhaps"}
        scene.one.etcd.put_all({key: json.dumps(value)})
        await until(lambda: scene.backends() == {FRONTEND: {"10.0.0.1"}}, "affinity local")
        assert await explained(scene) == {
            "10.0.0.1:8080/TCP": (True, "active"),
            "20.0.0.1:8080/TCP": (False, "affinity local, and this cluster has active backends"),
            "20.0.0.2:8080/TCP": (False, "affinity local, and this cluster has active backends"),
        }
        shown = await ask(scene, "explain", "service", "default/rebel-base")
        assert shown.exit_code == 1
        assert "USED 100.0%" in shown.output
        assert "NOT USED" in shown.output
        listed = await ask(scene, "service", "list")
        assert listed.exit_code == 1  # a problem
        assert "default/rebel-base" in listed.output
        assert "perhaps" in listed.output
        value["annotations"] = {"io.cilium/global-service": "true", "meshd.io/drain-clusters": "cluster2,cluster22"}
        scene.one.etcd.put_all({key: json.dumps(value)})
        drained = {"20.0.0.1:8080/TCP": (False, "its cluster is drained")}
        await until(lambda: scene.backends() == {FRONTEND: {"10.0.0.1"}} and not daemon.mesh.services.with_problems)
        assert (await explained(scene)).items() >= drained.items()
        sentence = "its annotations name cluster22, which is no cluster of this mesh (yet)"
        for words in ("explain", "service", "default/rebel-base"), ("service", "list"):
            answer = await ask(scene, *words, "-o", "json")
            assert (answer.exit_code, [each["problems"] for each in json.loads(answer.stdout)]) == (1, [[sentence]])
        assert f"service default/rebel-base: {sentence}" in Report(daemon).status()["findings"]
        value["annotations"] = {"io.cilium/global-service": "maybe"}
        scene.one.etcd.put_all({key: json.dumps(value)})
        await until(lambda: scene.backends() == {}, "not global")
        unclear = await ask(scene, "explain", "service", "default/rebel-base")
        assert unclear.exit_code == 1
        assert "NOT GLOBAL: whether it is to be global cannot be understood" in unclear.output
        assert "'maybe' is neither true nor false" in unclear.output
        assert "maybe" in (await ask(scene, "service", "list")).output
        missing = await ask(scene, "explain", "service", "default/none")
        assert (missing.exit_code, "NOT GLOBAL" in missing.output) == (1, True)


async def test_a_full_map_keeps_what_is_there_says_so_and_is_tried_again(scene: Scene) -> None:
    scene.maps.fails = no_faults
    scene.maps.sizes["md_be4"] = 4
    async with scene.daemon() as daemon:
        await until(lambda: len(scene.backends().get(FRONTEND, ())) == 4, "both clusters")
        held = scene.maps.dump("md_svc4")
        scene.two.etcd.put_all(
            records.service("cluster2", 2, "default/rebel-base", "20.0.0.1", "20.0.0.2", "20.0.0.3")
            | records.service("cluster2", 2, "default/other", "20.0.0.9")
        )
        await until(lambda: daemon.maps.retries.failures, "the map is full")
        assert scene.backends() == {FRONTEND: {"10.0.0.1", "10.0.0.2", "20.0.0.1", "20.0.0.2"}}
        assert scene.maps.dump("md_svc4") == held
        status = Report(daemon).status()
        assert status["state"] == "degraded"
        result = await ask(scene, "explain", "service", "default/rebel-base", "-o", "json")
        (answer,) = json.loads(result.stdout)
        new = next(each for each in _backends(answer) if each["backend"].startswith("20.0.0.3"))
        assert "full" in new["not_realised"]
        differs = await ask(scene, "service", "list", "--diff")
        assert (differs.exit_code, "the map is full" in differs.output) == (1, True)
        for what in ("ipcache", "node", "identity"):
            assert (await ask(scene, what, "list", "--diff")).exit_code == 0
        scene.maps.sizes["md_be4"] = MAPS["md_be4"].size
        await until(lambda: len(scene.backends()[FRONTEND]) == 5, "there is room")
        await until(lambda: not daemon.maps.retries.failures, "everything is written")
        assert (await ask(scene, "service", "list", "--diff")).exit_code == 0


async def test_no_daemon_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(program, ["service", "list", "--run-dir", str(tmp_path)])
    assert (result.exit_code, "no daemon" in result.output) == (2, True)
