"""Whatever comes from a peer: answers to lists and watches, configuration, certificate, probe replies. It ends at most
the connection, with a reason; nothing of another cluster moves. Records are tests/unit/wire/test_codec.py and, through
to what is desired, tests/unit/meshd/daemon/test_mesh.py; echo replies test_echo.py.
"""

import asyncio
import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given, settings
from hypothesis import strategies as st

from certs.authority import init_ca
from certs.leaves import issue
from certs.names import Leaf
from datapath.probe import decode_reply
from meshd.daemon.connection import Connection
from meshd.daemon.etcd import peer_error
from meshd.daemon.link import PeerRejected, PeerUnavailable
from meshd.daemon.remote import Remote
from meshd.daemon.remotefile import parse_remote_file
from meshd.daemon.servercert import NoCertificate, describe_certificate
from meshd.daemon.timeline import Timeline
from tests.support import records
from tests.support.world import World
from wire.codec import BadRecord, decode_cluster_config
from wire.keys import HEARTBEAT, SHARED_KINDS, SYNCED_PREFIX, Kind, cluster_config, prefix
from wire.proto import kv_pb2, rpc_pb2

PATIENCE_S = 0.1
INT64 = st.sampled_from([0, 1, 2, 5, 2**63 - 1, -1, -(2**63)]) | st.integers(-(2**63), 2**63 - 1)
UINT64 = st.sampled_from([0, 7, 7, 7]) | st.integers(0, 2**64 - 1)
OTHERS = [HEARTBEAT, cluster_config("cluster2"), SYNCED_PREFIX, ""]
STARTS = [*OTHERS, *(prefix(kind, "cluster2") for kind in SHARED_KINDS)]
TAILS = st.sampled_from([b"", b"n1", b"20.0.0.1", b"131073", b"cluster2/", b"ns/a"]) | st.binary(max_size=8)
KEYS = st.builds(lambda start, tail: start.encode() + tail, st.sampled_from(STARTS), TAILS)
SAID = records.cluster("cluster2", 2)
NODE = records.node("cluster2", 2, "n1", "172.18.2.11", "20.0.0.0/24")
GOOD = [value.encode() for value in (*SAID.values(), *NODE.values())]
VALUES = st.sampled_from(GOOD) | st.binary(max_size=20)
KVS = st.builds(kv_pb2.KeyValue, key=KEYS, value=VALUES, mod_revision=INT64, create_revision=INT64, lease=INT64)
HEADERS = st.builds(rpc_pb2.ResponseHeader, cluster_id=UINT64, revision=INT64)
PAGES = st.builds(rpc_pb2.RangeResponse, header=HEADERS, kvs=st.lists(KVS, max_size=4), more=st.booleans(), count=INT64)
EVENTS = st.builds(kv_pb2.Event, type=st.sampled_from([0, 1]), kv=KVS)
ANSWERS = st.builds(
    rpc_pb2.WatchResponse,
    header=HEADERS,
    watch_id=st.integers(-1, 8),
    created=st.booleans(),
    canceled=st.sampled_from([False, False, False, True]),
    compact_revision=st.sampled_from([0, 0, 3, -1]),
    cancel_reason=st.text(max_size=4),
    fragment=st.booleans(),
    events=st.lists(EVENTS, max_size=4),
)
RAW = st.binary(max_size=30)
CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
STATUS = st.tuples(st.sampled_from(CODES), st.text(max_size=8))


LAST = rpc_pb2.RangeResponse(header=rpc_pb2.ResponseHeader(revision=2**63 - 1))


def served(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


class Liar:
    """A server that answers as it was told to; to the first lists, if it is `plausible`, as a real one."""

    def __init__(self, pages: list[Any], answers: list[Any], *, plausible: bool) -> None:
        self._pages, self._answers, self._plausible = pages, answers, plausible
        self._turn = 0

    async def range(self, request: bytes, context: Any) -> bytes:
        asked = rpc_pb2.RangeRequest.FromString(request)
        said = SAID.get(asked.key.decode(errors="replace"))
        if self._plausible and said is not None:
            kv = kv_pb2.KeyValue(key=asked.key, value=said.encode(), mod_revision=1)
            header = rpc_pb2.ResponseHeader(cluster_id=7, revision=2)
            return served(rpc_pb2.RangeResponse(header=header, kvs=[kv], count=1))
        self._turn += 1
        await asyncio.sleep(0.001)
        told = self._pages[self._turn % len(self._pages)]
        if isinstance(told, tuple):
            await context.abort(*told)
        return served(told)

    async def watch(self, _requests: object, context: Any) -> None:
        with suppress(grpc.aio.AioRpcError):
            for answer in self._answers:
                await context.read()
                if isinstance(answer, tuple):
                    await context.abort(*answer)
                await context.write(served(answer))
            await asyncio.sleep(PATIENCE_S)


async def meet(liar: Liar, remote: Remote) -> BaseException | None:
    """How the connection ended; None if it goes on."""
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    server = grpc.aio.server(
        handlers=[
            grpc.method_handlers_generic_handler("etcdserverpb.KV", {"Range": unary(liar.range)}),
            grpc.method_handlers_generic_handler("etcdserverpb.Watch", {"Watch": stream(liar.watch)}),
        ]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            task = asyncio.create_task(Connection(channel, "cluster2", remote).run())
            await asyncio.wait([task], timeout=PATIENCE_S)
            task.cancel()
            await asyncio.wait([task], timeout=20)
            return None if task.cancelled() else task.exception()
    finally:
        await server.stop(None)


def told() -> World:
    world = World(ids={"cluster1": 1, "cluster3": 3})
    world.say("cluster1", Kind.NODE, records.node("cluster1", 1, "n1", "172.18.1.11", "10.0.0.0/24"))
    world.say("cluster1", Kind.LOCAL_SERVICE, records.local_service("cluster1", "ns/a", "30.1.1.1", "10.0.0.1"))
    world.say("cluster3", Kind.NODE, records.node("cluster3", 3, "n1", "172.18.3.11", "40.0.0.0/24"))
    world.say("cluster3", Kind.IP, records.ip("cluster3", "40.0.0.1", "172.18.3.11", 3 * 65536 + 1))
    world.say("cluster3", Kind.SERVICE, records.service("cluster3", 3, "ns/a", "40.0.0.1"))
    world.refresh()
    return world


@given(
    st.lists(PAGES | PAGES | PAGES | RAW | STATUS, min_size=1, max_size=6),
    st.lists(ANSWERS | ANSWERS | ANSWERS | RAW | STATUS, max_size=8),
    st.sampled_from([True, True, True, False]),
)
@example([b"\xff"], [b"\xff"], True)
@example([LAST], [], True)
@settings(max_examples=150, deadline=None)
def test_no_answer_of_a_peer_does_more_than_end_its_connection(
    pages: list[Any], answers: list[Any], plausible: bool
) -> None:
    world = told()
    before = world.picture()
    file = parse_remote_file(
        "cluster2", "{endpoints: ['https://h'], trusted-ca-file: a, cert-file: b, key-file: c}", folder=Path()
    )
    remote = Remote(
        file,
        kinds=SHARED_KINDS,
        store=world.store,
        members=world.members,
        on_change=lambda: None,
        timeline=Timeline(),
    )
    ended = asyncio.run(meet(Liar(pages, answers, plausible=plausible), remote))
    assert ended is None or isinstance(ended, PeerUnavailable | PeerRejected), ended
    world.refresh()
    remote.leave()
    world.leave("cluster2")
    world.mesh.leave("cluster2")
    world.refresh()
    assert world.picture() == before


ODD: st.SearchStrategy[object] = (
    st.none() | st.booleans() | INT64 | st.floats() | st.text(max_size=4) | st.just({"id": 2}) | st.just([[]])
)
CONFIGS = st.dictionaries(st.sampled_from(["id", "capabilities", "ID", "x"]), ODD).map(json.dumps).map(str.encode)


@given(st.binary(max_size=60) | CONFIGS)
def test_a_cluster_config_is_read_or_refused(value: bytes) -> None:
    with suppress(BadRecord):
        decode_cluster_config(value)


@pytest.fixture(scope="module")
def der(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("certs")
    now = datetime.now(UTC)
    made = issue(init_ca(folder, now=now), Leaf.parse("server-cluster2"), folder, now=now)
    certificate = x509.load_pem_x509_certificate((made / "tls.crt").read_bytes())
    return certificate.public_bytes(Encoding.DER)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # below 0: read today, refused by later libraries
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=3), st.integers(0, 40))
@example([(15, 128)], 0)
@settings(max_examples=300)
def test_a_servers_certificate_is_read_or_refused(der: bytes, changes: list[tuple[int, int]], shorter: int) -> None:
    found = bytearray(der[: len(der) - shorter])
    for place, value in changes:
        found[place % len(found)] = value
    with suppress(NoCertificate):
        describe_certificate(bytes(found), "cluster2.mesh.cilium.io")


@given(st.binary(max_size=80), st.integers(0, 2**64 - 1))
def test_a_probe_reply_is_ours_or_nothing(payload: bytes, cookie: int) -> None:
    number = decode_reply(payload, cookie)
    assert number is None or cookie.to_bytes(8, sys.byteorder) in payload or cookie.to_bytes(8, "big") in payload


@given(STATUS, st.booleans())
def test_every_failed_call_is_sorted(status: tuple[grpc.StatusCode, str], answered: bool) -> None:
    nothing = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(status[0], nothing, nothing, details=status[1])
    assert isinstance(peer_error(error, answered=answered), PeerUnavailable | PeerRejected)
