"""What a kubelet makes of a pod's spec: commands, environments and the status that it reports. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshd.config import ConfigError

Object = Mapping[str, Any]
CONTAINER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


@dataclass(frozen=True, slots=True)
class Command:
    """One container, ready to start."""

    container: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    ports: tuple[int, ...]
    """TCP ports that the container declares: it is ready when it listens on all of them."""


def commands(pod: Object, config_maps: Mapping[str, Object]) -> list[Command]:
    """`config_maps` are those of the pod's namespace, by name. Raises ConfigError naming the pod and the field."""
    return [_command(pod, container, config_maps) for container in pod["spec"]["containers"]]


def _command(pod: Object, container: Object, config_maps: Mapping[str, Object]) -> Command:
    where = f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}, container {container['name']}"
    words = [*container.get("command", ()), *container.get("args", ())]
    if not container.get("command"):
        raise ConfigError(f"{where}: needs a command; the testbed has no image to take one from")
    env = {"PATH": CONTAINER_PATH, "HOSTNAME": pod["metadata"]["name"]}
    for variable in container.get("env", ()):
        env[variable["name"]] = _value(variable, pod, config_maps, env, where)
    return Command(
        container=container["name"],
        argv=tuple(_expand(word, env) for word in words),
        env=env,
        ports=tuple(p["containerPort"] for p in container.get("ports", ()) if p.get("protocol", "TCP") == "TCP"),
    )


def _value(variable: Object, pod: Object, config_maps: Mapping[str, Object], env: Mapping[str, str], where: str) -> str:
    source = variable.get("valueFrom")
    if source is None:
        return _expand(str(variable.get("value", "")), env)
    if "fieldRef" in source:
        return _field(source["fieldRef"]["fieldPath"], pod, where)
    if "configMapKeyRef" in source:
        reference = source["configMapKeyRef"]
        try:
            return str(config_maps[reference["name"]]["data"][reference["key"]])
        except KeyError as error:
            raise ConfigError(
                f"{where}: env {variable['name']}: no ConfigMap key {reference['name']}/{reference['key']}"
            ) from error
    raise ConfigError(
        f"{where}: env {variable['name']}: the testbed knows fieldRef and configMapKeyRef, not {', '.join(source)}"
    )


def _field(path: str, pod: Object, where: str) -> str:
    """The downward API."""
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        return str(pod["metadata"].get(subscript[1], {}).get(subscript[2], ""))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if not isinstance(value, str):
        raise ConfigError(f"{where}: fieldRef {path} is not a field that the testbed can give")
    return value


def _expand(text: str, env: Mapping[str, str]) -> str:
    """Kubernetes' `$(NAME)`; `$$` is a dollar sign, an unknown name stays as it is."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return env.get(match[1], match[0])

    return _REFERENCE.sub(one, text)


def with_status(pod: Object, *, node: str, host_ip: str, pod_ip: str, ready: bool) -> dict[str, Any]:
    """A copy of the pod as the API server would show it, running on a node."""
    up = "True" if ready else "False"
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Initialized", "status": "True"},
        {"type": "ContainersReady", "status": up},
        {"type": "Ready", "status": up},
    ]
    return {
        **pod,
        "spec": {"serviceAccountName": "default", **pod["spec"], "nodeName": node},
        "status": {
            "phase": "Running",
            "hostIP": host_ip,
            "hostIPs": [{"ip": host_ip}],
            "podIP": pod_ip,
            "podIPs": [{"ip": pod_ip}],
            "conditions": conditions,
        },
    }
