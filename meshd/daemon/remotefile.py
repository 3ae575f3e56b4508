"""A file that names a remote cluster, in Cilium's format: endpoints, certificates, and our own key `meshd:`.

Reads one file's text; the folder is clustermesh.py. Files written for Cilium work unchanged; what we will not do
(no verification, passwords) is refused with the reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from meshd.daemon.allowance import DEFAULT_ALLOWANCE, KEYS, Allowance, parse_allowance
from routing.plan import Mode

DOMAIN = "mesh.cilium.io"
DEFAULT_PORT = 2379
_REFUSED = {
    "insecure-transport": "a remote is reached with mutual TLS only",
    "insecure-skip-tls-verify": "the remote's certificate is always verified",
    "username": "the client certificate says who we are",
    "password": "the client certificate says who we are",
}
_OURS = KEYS | {"routing-mode"}


class BadRemoteFile(ValueError):
    """A file that cannot be used; str(error) names what is wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """How a cluster is reached. `targets` are gRPC targets, to be tried in turn; `warnings` are shown in status."""

    cluster: str
    targets: tuple[str, ...]
    ca_file: Path
    cert_file: Path
    key_file: Path
    server_name: str
    allowance: Allowance = DEFAULT_ALLOWANCE
    routing_mode: Mode | None = None
    """How its nodes are reached, if not as all others."""
    warnings: tuple[str, ...] = ()


def is_remote_file(text: str) -> bool:
    """Cilium's rule: a file in the folder names a remote iff it contains this."""
    return "endpoints:" in text


def parse_remote_file(cluster: str, text: str, *, folder: Path) -> RemoteFile:
    """Paths are relative to `folder`. Raises BadRemoteFile."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadRemoteFile(f"is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise BadRemoteFile("must be a mapping with `endpoints:`")
    for key, reason in _REFUSED.items():
        if document.get(key):
            raise BadRemoteFile(f"`{key}` is refused: {reason}; remove the line")
    ours = document.get("meshd") or {}
    if not isinstance(ours, dict):
        raise BadRemoteFile("`meshd:` must be a mapping")
    try:
        allowance = parse_allowance(ours)
    except ValueError as error:
        raise BadRemoteFile(str(error)) from error
    files = [
        _file(document, folder, *names) for names in (("trusted-ca-file", "ca-file"), ("cert-file",), ("key-file",))
    ]
    return RemoteFile(
        cluster=cluster,
        targets=_targets(document.get("endpoints"), _aliases(document.get("cilium-host-aliases"))),
        ca_file=files[0],
        cert_file=files[1],
        key_file=files[2],
        server_name=str(ours.get("server-name") or f"{cluster}.{DOMAIN}"),
        allowance=allowance,
        routing_mode=_mode(ours.get("routing-mode")),
        warnings=tuple(f"unknown key `meshd.{key}` is ignored" for key in ours if key not in _OURS),
    )


def _mode(value: object) -> Mode | None:
    try:
        return None if value is None else Mode(str(value))
    except ValueError as error:
        raise BadRemoteFile(f"`meshd.routing-mode` must be one of {', '.join(Mode)}, is {value!r}") from error


def _file(document: Mapping[str, object], folder: Path, *names: str) -> Path:
    for name in names:
        if value := document.get(name):
            return folder / str(value)
    raise BadRemoteFile(f"`{names[0]}` is missing: the path of a PEM file")


def _aliases(document: object) -> dict[str, list[str]]:
    """Addresses by host name, as Cilium checks them."""
    if document and not isinstance(document, list):
        raise BadRemoteFile("`cilium-host-aliases` must be a list such as [{hostname: c2.example, ips: [172.18.1.10]}]")
    aliases: dict[str, list[str]] = {}
    for entry in document if isinstance(document, list) else []:
        hostname, addresses = (entry.get("hostname"), entry.get("ips")) if isinstance(entry, dict) else ("", [])
        name = str(hostname).lower()  # names of hosts are alike in any case
        if not hostname or not addresses or not isinstance(addresses, list) or name in aliases:
            raise BadRemoteFile("each of `cilium-host-aliases` needs a `hostname` of its own and at least one of `ips`")
        aliases[name] = [_alias(name, str(address)) for address in addresses]
    return aliases


def _alias(hostname: str, address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError as error:
        raise BadRemoteFile(f"`cilium-host-aliases` of {hostname}: {address!r} is no IP address") from error


def _targets(endpoints: object, aliases: Mapping[str, list[str]]) -> tuple[str, ...]:
    if not isinstance(endpoints, list) or not endpoints:
        raise BadRemoteFile("`endpoints` must be a list such as [https://172.18.1.10:2379]")
    targets: list[str] = []
    for endpoint in endpoints:
        host, port = _split(str(endpoint))
        targets += [_target(address, port) for address in aliases.get(host, [host])]
    return tuple(dict.fromkeys(targets))


def _split(endpoint: str) -> tuple[str, int]:
    url = urlsplit(endpoint if "//" in endpoint else f"https://{endpoint}")
    try:
        port = url.port or DEFAULT_PORT
    except ValueError as error:
        raise BadRemoteFile(f"endpoint {endpoint!r}: {error}") from error
    if url.scheme != "https" or not url.hostname:
        raise BadRemoteFile(f"endpoint {endpoint!r} must be https://HOST:PORT")
    return url.hostname, port


def _target(host: str, port: int) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return f"dns:///{host}:{port}"
    return f"ipv4:{address}:{port}" if address.version == 4 else f"ipv6:[{address}]:{port}"
