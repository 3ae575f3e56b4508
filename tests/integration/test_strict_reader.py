"""An independent, strict reader at the end of a real chain: manifests → agent → etcd → proxy → reader.

The reader (tests/support/strict_reader.py) knows the wire contract and nothing of ours.
"""

import asyncio
import base64
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio
import pytest

from certs.leaves import issue
from certs.names import Leaf
from tests.support import kubernetes
from tests.support.agent import AgentProcess
from tests.support.ports import free_port
from tests.support.proxied import ProxiedCluster, new_authority
from tests.support.strict_reader import Lost, StrictReader

pytestmark = pytest.mark.etcd

GOLDEN = Path(__file__).parents[1] / "golden"
STATE = "cilium/state/"
GENERATION = "meshd/v1/generation"
SEEDS = range(int(os.environ.get("MESHD_READER_SEEDS", "2")))


class Mesh:
    """cluster1 with its proxy, and the certificate of a remote cluster's reader."""

    def __init__(self, folder: Path) -> None:
        authority = new_authority(folder / "ca")
        self.cluster = ProxiedCluster(folder, "cluster1", authority, folder / "readers")
        self.certificate = issue(authority, Leaf.parse("remote-cluster2"), folder / "readers", now=datetime.now(UTC))
        self.etcd = self.cluster.etcd

    @asynccontextmanager
    async def reading(self, reader: StrictReader) -> AsyncIterator["asyncio.Task[None]"]:
        """Connected until the end of the block, or until it is lost."""
        ca, key, cert = ((self.certificate / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
        options = [
            ("grpc.ssl_target_name_override", "cluster1.mesh.cilium.io"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", 15_000),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
        ]
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        async with grpc.aio.secure_channel(f"127.0.0.1:{self.cluster.port}", credentials, options=options) as channel:
            reader.ended = None  # of the connection before
            task = asyncio.ensure_future(reader.connect(channel))
            try:
                yield task
                if task.done():
                    task.result()  # what broke the contract
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError, Lost, grpc.aio.AioRpcError):
                    await task

    def standing(self) -> dict[str, dict[str, bytes]]:
        """What etcd itself says, by kind."""
        scopes = {"nodes": "cluster1/", "services": "cluster1/", "ip": "default/", "identities": "id"}
        return {kind: self._below(f"{STATE}{kind}/v1/{scope}") for kind, scope in scopes.items()}

    def _below(self, prefix: str) -> dict[str, bytes]:
        return {key.removeprefix(prefix): value for key, value in self.etcd.keys(prefix).items()}


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    made = Mesh(tmp_path)
    try:
        made.etcd.start()
        made.etcd.put(
            GENERATION, "one"
        )  # the first agent would write one, and readers would be told by a new cluster id
        made.cluster.start_proxy()
        yield made
    finally:
        made.cluster.stop()


@pytest.fixture
def agent(tmp_path: Path, mesh: Mesh) -> Iterator[AgentProcess]:
    """An agent that does not run yet, over an empty folder."""
    made = AgentProcess(tmp_path, mesh.etcd.url, cluster="cluster1", instance="c1")
    yield made
    made.kill()


def matches(reader: StrictReader, mesh: Mesh) -> bool:
    """The reader believes exactly what stands in etcd, byte for byte, and skipped nothing."""
    if not reader.ready or any(store.invalid for store in reader.stores.values()):
        return False
    return {kind: store.records for kind, store in reader.stores.items()} == mesh.standing()


def put_golden(mesh: Mesh) -> dict[str, int]:
    """Puts what a real writer wrote, and a heartbeat; the number of records by kind."""
    counts: dict[str, int] = {}
    for line in (GOLDEN / "cluster1.etcd.jsonl").read_text().splitlines():
        entry = json.loads(line)
        mesh.etcd.put(entry["key"], entry["value"] if "value" in entry else base64.b64decode(entry["value_base64"]))
        kind = entry["key"].removeprefix(STATE).partition("/")[0]
        counts[kind] = counts.get(kind, 0) + 1
    mesh.etcd.put("cilium/.heartbeat", "now")
    return counts


async def test_what_a_real_writer_wrote_comes_through_our_proxy(mesh: Mesh) -> None:
    counts = put_golden(mesh)
    counts["services"] -= 1  # shop/ext has an empty frontend address
    reader = StrictReader("cluster1")
    async with mesh.reading(reader):
        await reader.until(lambda: reader.ready and len(reader.stores) == 5, "all synced")
        stores = reader.stores
        assert stores["services"].invalid.keys() == {"shop/ext"}
        assert {kind: len(store.records) for kind, store in stores.items()} == {kind: counts[kind] for kind in stores}


async def test_a_compaction_that_overtakes_the_proxy_makes_it_list_anew(mesh: Mesh) -> None:
    put_golden(mesh)
    reader, etcd = StrictReader("cluster1"), mesh.etcd
    async with mesh.reading(reader):
        await reader.until(lambda: reader.ready and len(reader.stores) == 5, "all synced")
        etcd.stop()
        own_port, etcd.port = etcd.port, free_port()
        etcd.start()  # where the proxy does not see it
        ips = list(etcd.keys(f"{STATE}ip/v1/default/"))
        etcd.delete(ips[0])
        etcd.compact(etcd.put(ips[1], '{"IP":"1.2.3.4"}'))  # of another address: to be skipped
        etcd.stop()
        etcd.port = own_port
        etcd.start()
        await reader.until(lambda: reader.relists >= 5, "lists anew")
        gone, spoiled = (key.removeprefix(f"{STATE}ip/v1/default/") for key in ips[:2])
        await reader.until(lambda: gone not in reader.stores["ip"].records, "what was deleted meanwhile is gone")
        assert spoiled in reader.stores["ip"].invalid
        assert spoiled in reader.stores["ip"].records  # the older, valid value


async def test_what_our_agent_makes_of_the_golden_objects(mesh: Mesh, agent: AgentProcess) -> None:
    agent.write_text("golden.json", (GOLDEN / "cluster1.objects.json").read_text())
    await asyncio.to_thread(agent.start_and_publish)
    reader = StrictReader("cluster1")
    async with mesh.reading(reader):
        await reader.until(lambda: matches(reader, mesh), "what stands in etcd")
        assert reader.stores["services"].records
        assert reader.canaries == {f"{STATE}{kind}/v1" for kind in reader.stores}
        await reader.until(lambda: reader.heartbeats > 3, "the heart beats")


async def test_another_generation_is_another_connection(mesh: Mesh, agent: AgentProcess) -> None:
    """Readers are told by another cluster id, and list everything anew."""
    agent.write("objects.yaml", kubernetes.namespace("default"), kubernetes.node("node-1"))
    await asyncio.to_thread(agent.start_and_publish)
    reader = StrictReader("cluster1")

    async def read_until_lost() -> None:
        async with mesh.reading(reader) as connection:
            await reader.until(lambda: matches(reader, mesh), "what stands in etcd")
            mesh.etcd.put(GENERATION, "two")
            await asyncio.wait([connection], timeout=30)

    with pytest.raises(Lost, match="the cluster id changed"):
        await read_until_lost()
    pages = reader.pages
    async with mesh.reading(reader):
        await reader.until(lambda: matches(reader, mesh) and reader.pages > pages + 5, "all of it, again")


def random_objects(chance: random.Random) -> list[kubernetes.Document]:
    namespaces = ["default", "shop", "a"]
    made = [kubernetes.namespace(name, labels={"team": chance.choice(["x", "y"])}) for name in namespaces]
    made += [kubernetes.node(f"node-{n}", f"172.18.1.{n}", pod_cidrs=[f"10.{n}.0.0/16"]) for n in range(1, 4)]
    for number in range(chance.randrange(280, 420)):
        addresses = [f"10.{chance.randrange(1, 4)}.{number // 250}.{number % 250 + 1}"]
        addresses += [f"fd00:10::{number + 1:x}"] if chance.random() < 0.3 else []
        made.append(
            kubernetes.pod(
                f"pod-{number}",
                *addresses,
                namespace=chance.choice(namespaces),
                labels={"app": f"app-{chance.randrange(30)}"},
                ready=chance.random() < 0.9,
                host_ip=f"172.18.1.{chance.randrange(1, 4)}",
            )
        )
    for number in range(30):
        space = chance.choice(namespaces)
        annotations = chance.choice([kubernetes.GLOBAL, kubernetes.GLOBAL, kubernetes.GLOBAL_NOT_SHARED, {}])
        made.append(
            kubernetes.service(f"app-{number}", f"10.96.0.{number + 1}", namespace=space, annotations=annotations)
        )
        endpoints = [{"addresses": [f"10.1.9.{chance.randrange(1, 250)}"], "conditions": {"ready": True}}]
        made.append(kubernetes.endpoint_slice(f"app-{number}-x", f"app-{number}", endpoints, namespace=space))
    return made


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_clusters_that_change_while_the_proxy_is_restarted(
    seed: int, mesh: Mesh, agent: AgentProcess
) -> None:
    chance = random.Random(seed)
    reader = StrictReader("cluster1")
    agent.write("objects.yaml", *random_objects(chance))
    await asyncio.to_thread(agent.start_and_publish)
    async with mesh.reading(reader):
        for _ in range(2):
            await reader.until(lambda: matches(reader, mesh), "what stands in etcd")
            agent.write("objects.yaml", *random_objects(chance))
        await reader.until(lambda: matches(reader, mesh), "what stands in etcd after changes")
    assert len(reader.stores["ip"].records) > 256
    assert reader.pages >= 7  # one each, two for the ips
    mesh.cluster.kill_proxy()
    believed = {kind: dict(store.records) for kind, store in reader.stores.items()}
    agent.write("objects.yaml", *random_objects(chance))
    await asyncio.to_thread(mesh.cluster.start_proxy)
    assert {kind: store.records for kind, store in reader.stores.items()} == believed  # nothing is forgotten meanwhile
    async with mesh.reading(reader):
        await reader.until(lambda: matches(reader, mesh) and believed["ip"] != reader.stores["ip"].records, "the new")


async def test_an_agent_that_falls_silent_is_given_up_and_nothing_is_forgotten(mesh: Mesh, agent: AgentProcess) -> None:
    agent.write("objects.yaml", kubernetes.namespace("default"), kubernetes.node("node-1"))
    await asyncio.to_thread(agent.start_and_publish)
    reader = StrictReader("cluster1", heartbeat_limit_s=3)

    async def read_until_lost() -> None:
        async with mesh.reading(reader) as connection:
            await reader.until(lambda: matches(reader, mesh) and reader.heartbeats > 2, "what stands in etcd")
            os.kill(agent.pid, signal.SIGSTOP)
            await asyncio.wait([connection], timeout=30)

    with pytest.raises(Lost, match="no heartbeat for"):
        await read_until_lost()
    assert reader.stores["nodes"].records.keys() == {"node-1"}
    os.kill(agent.pid, signal.SIGCONT)
    async with mesh.reading(reader):
        await reader.until(lambda: matches(reader, mesh), "what stands in etcd, again")
