from typing import Any

import pytest

from meshd.config import ConfigError
from meshd.testbed.objects import is_ready
from meshd.testbed.podspec import commands, with_status

CONFIG_MAPS = {"server": {"data": {"server.py": "print('$(KEPT)')"}}}


def pod(*env: dict[str, Any], command: list[str] | None = None, **container: Any) -> dict[str, Any]:
    metadata = {"name": "a", "namespace": "default", "labels": {"name": "shop"}}
    one = {"name": "main", "command": ["run", "$(X)"] if command is None else command, "env": list(env), **container}
    return {"metadata": metadata, "spec": {"containers": [one], "nodeName": "node1"}, "status": {"podIP": "10.0.0.1"}}


def env_of(*env: dict[str, Any]) -> dict[str, str]:
    [command] = commands(pod(*env), CONFIG_MAPS)
    return dict(command.env)


def test_downward_api() -> None:
    paths = ["metadata.name", "status.podIP", "spec.nodeName", "metadata.labels['name']", "metadata.labels['none']"]
    variables = ({"name": f"V{i}", "valueFrom": {"fieldRef": {"fieldPath": path}}} for i, path in enumerate(paths))
    env = env_of(*variables)
    assert [env[f"V{i}"] for i in range(5)] == ["a", "10.0.0.1", "node1", "shop", ""]


def test_command_words_are_expanded_once() -> None:
    program = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "server", "key": "server.py"}}}
    [command] = commands(pod(program, command=["python3", "-c", "$(X)", "$$(X)", "$(unknown)"]), CONFIG_MAPS)
    assert command.argv == ("python3", "-c", "print('$(KEPT)')", "$(X)", "$(unknown)")


def test_environment_is_the_containers_own() -> None:
    assert env_of() == {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": "a"}


def test_ports_to_wait_for_are_the_tcp_ones() -> None:
    ports = [{"containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]
    assert commands(pod(ports=ports), {})[0].ports == (8080,)


@pytest.mark.parametrize(
    "variable",
    [
        {"fieldRef": {"fieldPath": "spec.containers"}},
        {"configMapKeyRef": {"name": "server", "key": "none"}},
        {"secretKeyRef": {"name": "s", "key": "k"}},
    ],
)
def test_what_the_testbed_cannot_give_is_an_error_that_names_the_pod(variable: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="pod default/a, container main"):
        env_of({"name": "X", "valueFrom": variable})


def test_a_container_without_a_command_is_an_error() -> None:
    with pytest.raises(ConfigError, match="needs a command"):
        commands(pod(command=[]), {})


@pytest.mark.parametrize("ready", [True, False])
def test_status_says_ready_or_not(ready: bool) -> None:
    shown = with_status(pod(), node="node2", host_ip="172.18.1.12", pod_ip="10.0.1.1", ready=ready)
    assert is_ready(shown) is ready
    assert shown["spec"]["nodeName"] == "node2"
    assert shown["status"]["hostIP"] == "172.18.1.12"
