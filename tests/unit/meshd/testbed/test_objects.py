from pathlib import Path

import pytest

from meshd.config import ConfigError
from meshd.testbed.objects import Objects, check_annotation, defaulted, read_manifests
from meshd.testbed.plan import CLUSTERS
from meshd.testbed.podspec import commands
from meshd.testbed.testbed import MANIFESTS

SERVICE = {"kind": "Service", "metadata": {"name": "a"}, "spec": {"clusterIP": "30.1.0.9", "ports": [{"port": 80}]}}


def test_manifests_get_an_api_servers_defaults() -> None:
    spec = defaulted(SERVICE, Path("x.yaml"))["spec"]
    assert spec["ports"] == [{"protocol": "TCP", "targetPort": 80, "port": 80}]
    assert spec["clusterIPs"] == ["30.1.0.9"]
    assert SERVICE["spec"] == {"clusterIP": "30.1.0.9", "ports": [{"port": 80}]}, "the manifest is not touched"


@pytest.mark.parametrize("document", ["text", {"kind": "Deployment"}, {"kind": "Pod"}, {"kind": "Pod", "metadata": {}}])
def test_what_the_testbed_cannot_run_names_the_file(document: object) -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml: "):
        defaulted(document, Path("x.yaml"))


def test_written_objects_come_back(tmp_path: Path) -> None:
    objects = Objects(tmp_path / "objects")
    service = defaulted(SERVICE, Path("x.yaml"))
    objects.write(service)
    assert objects.list("Service") == [service] == [objects.get("Service", "a")]
    objects.delete(service)
    objects.delete(service)
    assert objects.list("Service") == []


def test_writing_the_same_again_writes_nothing(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.write(defaulted(SERVICE, Path("x.yaml")))
    [file] = tmp_path.iterdir()
    before = file.stat().st_ino
    objects.write(defaulted(SERVICE, Path("x.yaml")))
    assert file.stat().st_ino == before


def test_missing_objects_name_those_that_there_are(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.write(defaulted(SERVICE, Path("x.yaml")))
    with pytest.raises(KeyError, match="no Service 'b' in namespace default; there are: a"):
        objects.get("Service", "b")


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_manifest_runs_here_and_has_no_status(name: str) -> None:
    objects = read_manifests([MANIFESTS / "shared", MANIFESTS / name])
    config_maps = {obj["metadata"]["name"]: obj for obj in objects if obj["kind"] == "ConfigMap"}
    pods = [obj for obj in objects if obj["kind"] == "Pod"]
    assert {pod["metadata"]["name"] for pod in pods} >= {"rebel-base-1", "rebel-base-2", "frontend-1", "x-wing"}
    assert not [obj for obj in objects if "status" in obj]
    for pod in pods:
        [command] = commands(pod, config_maps)
        compile(command.argv[-1], pod["metadata"]["name"], "exec")


@pytest.mark.parametrize("key", ["", "/a", "a/", "-a", "a b", "A.b/c", "a/b/c", "meshd.io/" + "x" * 64])
def test_a_key_that_kubernetes_would_refuse_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="is no key for an annotation"):
        check_annotation(key)
    check_annotation("io.cilium/global-service")
    check_annotation("a")
