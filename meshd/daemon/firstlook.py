"""What a cluster says of itself, its nodes and its services, read once, before anybody is connected. Nothing is kept
or written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import grpc.aio

from identity.numbering import identity_range
from meshd.daemon.credentials import BadCredentials, read_credentials
from meshd.daemon.etcd import Compacted, TooLarge, list_page, open_channel, peer_error
from meshd.daemon.link import PeerRejected, PeerUnavailable
from meshd.daemon.remotefile import RemoteFile
from meshd.daemon.servercert import NoCertificate, ServerCertificate, read_server_certificate
from meshd.daemon.watch import ListFrom
from wire.codec import BadRecord, Scope, decode, decode_cluster_config
from wire.keys import HEARTBEAT, Kind, Layout, cluster_config, interval, prefix
from wire.proto import rpc_pb2, rpc_pb2_grpc
from wire.records import ClusterConfig, Node, Service, value_or

TIMEOUT_S = 5.0
NODES_MAX = 10_000
SERVICES_MAX = 2_000
_COUNTED = (Kind.IP, Kind.SERVICE, Kind.IDENTITY)
DEFAULT_MAX_CLUSTERS = 255


@dataclass(frozen=True, slots=True)
class Heard:
    """`problem`: why less than all was heard, "" if all was."""

    cluster: str
    config: ClusterConfig | None = None
    nodes: tuple[Node, ...] = ()
    problem: str = ""
    frontends: Mapping[str, str] = field(default_factory=dict)
    """ClusterIPs of shared services, by address: which service has it. Of SERVICES_MAX services at most."""
    counts: Mapping[Kind, int] = field(default_factory=dict)
    """How many records there are of a kind."""
    heartbeat_age_s: float | None = None
    """By this machine's clock, so negative where the other is ahead; None: none that can be read."""
    etcd: str = ""
    """Version of its etcd, "" if it is not told."""
    certificate: ServerCertificate | None = None

    @property
    def max_clusters(self) -> int:
        """255 or 511; how identities are numbered depends on it."""
        config = self.config
        return value_or(config.capabilities.max_connected_clusters, DEFAULT_MAX_CLUSTERS) if config else 0


async def look(file: RemoteFile) -> Heard:
    """Asks the targets in turn. Raises nothing that the file or the cluster can cause."""
    try:
        credentials = read_credentials(file)
    except BadCredentials as error:
        return Heard(file.cluster, problem=str(error))
    problem = "no target"
    for target in file.targets:
        async with open_channel(target, credentials.channel, file.server_name) as channel:
            try:
                heard = await _read(channel, file.cluster)
                return replace(heard, certificate=await _certificate(target, file))
            except grpc.aio.AioRpcError as error:
                problem = f"{target}: {peer_error(error, answered=False)}"
            except (PeerUnavailable, PeerRejected, TooLarge, Compacted, BadRecord) as error:
                problem = f"{target}: {error}"
    return Heard(file.cluster, problem=problem)


async def _read(channel: grpc.aio.Channel, cluster: str) -> Heard:
    key = cluster_config(cluster)
    answer = await list_page(channel, ListFrom(key.encode(), b"", 0), limit=1, timeout_s=TIMEOUT_S)
    if not answer.kvs:
        raise PeerUnavailable(f"{key} is not there: does the cluster's agent run, and is this its name?")
    config = decode_cluster_config(answer.kvs[0].value)
    heard = Heard(cluster, config)
    try:
        scope = Scope(cluster, config.id, identity_range(config.id, max_clusters=heard.max_clusters))
    except ValueError as error:
        return Heard(cluster, config, problem=str(error))
    layout = Layout.CACHE if value_or(config.capabilities.cached, False) else Layout.STATE
    more = replace(
        heard,
        counts={kind: await _count(channel, prefix(kind, cluster, layout)) for kind in _COUNTED},
        heartbeat_age_s=await _heartbeat_age(channel),
        etcd=await _etcd_version(channel),
    )
    nodes, bad = await _records(channel, Kind.NODE, scope, layout, NODES_MAX)
    services, bad_services = await _records(channel, Kind.SERVICE, scope, layout, SERVICES_MAX)
    frontends = {
        address: f"{service.namespace}/{service.name}"
        for service in services
        if isinstance(service, Service)
        for address in service.frontends or ()
    }
    refused = [*bad, *bad_services]
    problem = f"{len(refused)} records are refused, the first: {refused[0]}" if refused else ""
    found = tuple(node for node in nodes if isinstance(node, Node))
    return replace(more, nodes=found, frontends=frontends, problem=problem)


async def _records(
    channel: grpc.aio.Channel, kind: Kind, scope: Scope, layout: Layout, most: int
) -> tuple[list[Any], list[str]]:
    """Up to `most` records of the kind, and why others are refused."""
    folder = prefix(kind, scope.cluster, layout)
    page = await list_page(channel, ListFrom(*interval(folder), 0), limit=most, timeout_s=TIMEOUT_S)
    found, bad = [], []
    for kv in page.kvs:
        try:
            found.append(decode(kind, kv.key.decode().removeprefix(folder), kv.value, scope))
        except (BadRecord, UnicodeDecodeError) as error:
            bad.append(str(error))
    return found, bad


async def _count(channel: grpc.aio.Channel, folder: str) -> int:
    stub: Any = rpc_pb2_grpc.KVStub
    start, end = interval(folder)
    request = rpc_pb2.RangeRequest(key=start, range_end=end, count_only=True)
    return int((await stub(channel).Range(request, timeout=TIMEOUT_S)).count)


async def _heartbeat_age(channel: grpc.aio.Channel) -> float | None:
    answer = await list_page(channel, ListFrom(HEARTBEAT.encode(), b"", 0), limit=1, timeout_s=TIMEOUT_S)
    try:
        written = datetime.fromisoformat(answer.kvs[0].value.decode())
    except (IndexError, ValueError):
        return None
    return (datetime.now(UTC) - written.replace(tzinfo=written.tzinfo or UTC)).total_seconds()


async def _etcd_version(channel: grpc.aio.Channel) -> str:
    stub: Any = rpc_pb2_grpc.MaintenanceStub
    try:
        return str((await stub(channel).Status(rpc_pb2.StatusRequest(), timeout=TIMEOUT_S)).version)
    except grpc.aio.AioRpcError:  # not everybody may ask
        return ""


async def _certificate(target: str, file: RemoteFile) -> ServerCertificate | None:
    try:
        return await read_server_certificate(target, file)
    except NoCertificate:
        return None
