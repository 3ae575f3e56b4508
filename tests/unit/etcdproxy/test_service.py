"""The service behind a session, asked by h2's client: what is queued for a reader that does not take it."""

import asyncio

import h2.events
import h2.settings
from grpc import StatusCode

from etcdproxy.history import History
from etcdproxy.http2.frames import PREFIX_BYTES, message_prefix
from etcdproxy.hub import Hub
from etcdproxy.limits import Limits
from etcdproxy.policy import Policy, Users
from etcdproxy.service import Service
from etcdproxy.store import Store
from tests.support.entries import entry
from tests.support.http2 import HEADERS, Pair
from wire.proto import rpc_pb2


def headers_of(method: str) -> list[tuple[str, str]]:
    return [(name, f"/etcdserverpb.{method}" if name == ":path" else value) for name, value in HEADERS]


_HEADERS = headers_of("KV/Range")
_KEYS = {b"cilium/state/%03d" % number: entry(b"cilium/state/%03d" % number, b"x" * 900, 5) for number in range(100)}


def make_service(limits: Limits) -> Service:
    hub = Hub()
    hub.replace(History(_KEYS, 10), Store(1, 2, 3), continues=False)
    return Service(hub, Policy("c1"), limits, stall_s=0)


def ask(pair: Pair, *, keys_only: bool = False) -> int:
    stream = pair.open(_HEADERS)
    request = rpc_pb2.RangeRequest(key=b"cilium/state/", range_end=b"cilium/state0", keys_only=keys_only)
    body = request.SerializeToString()
    pair.client.send_data(stream, message_prefix(len(body)) + body, end_stream=True)
    return stream


async def test_answers_that_are_not_taken_are_limited_and_given_back() -> None:
    service = make_service(Limits(peer_queued_bytes=200_000))
    pair = Pair(service.serve)
    pair.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    await pair.flow()
    streams = [ask(pair) for _ in range(3)]
    await pair.flow()
    size = service.peers.queued // 2
    assert size > 90_000
    assert pair.trailers(streams[2])["grpc-message"] == "meshd: too many bytes queued"
    assert service.peers.refused == {"meshd: too many bytes queued": 1}
    pair.client.increment_flow_control_window(1 << 20)
    pair.client.increment_flow_control_window(1 << 20, streams[0])
    await pair.flow()
    assert len(pair.body(streams[0])) == PREFIX_BYTES + size
    assert service.peers.queued == size
    await asyncio.sleep(0.001)
    service.end_stalled()
    await pair.flow()
    resets = [event.stream_id for event in pair.events if isinstance(event, h2.events.StreamReset)]
    assert resets == [streams[1]]
    assert service.peers.queued == 0
    assert pair.session.calls == 0


async def test_an_answer_is_no_longer_counted_once_the_reader_gives_up_or_is_gone() -> None:
    service = make_service(Limits())
    pair = Pair(service.serve)
    pair.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    await pair.flow()
    first, _ = ask(pair), ask(pair)
    await pair.flow()
    both = service.peers.queued
    pair.client.reset_stream(first)
    await pair.flow()
    assert service.peers.queued == both // 2
    pair.session.lost()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert service.peers.queued == 0


async def test_what_waits_for_the_first_list_is_judged_by_the_rules_of_then() -> None:
    service = Service(hub := Hub(), Policy("c1"), Limits(), stall_s=0)
    pair = Pair(service.serve)
    listing = ask(pair)
    watching = pair.open(headers_of("Watch/Watch"))
    create = rpc_pb2.WatchCreateRequest(key=b"cilium/state/", range_end=b"cilium/state0")
    body = rpc_pb2.WatchRequest(create_request=create).SerializeToString()
    pair.client.send_data(watching, message_prefix(len(body)) + body)
    await pair.flow()
    service.replace_policy(Policy("c1", Users(denied=frozenset({pair.session.name}))))
    hub.replace(History(_KEYS, 10), Store(1, 2, 3), continues=False)
    await pair.flow()
    assert pair.trailers(listing)["grpc-message"] == "etcdserver: permission denied"
    answer = rpc_pb2.WatchResponse.FromString(pair.body(watching)[PREFIX_BYTES:])
    assert (answer.created, answer.canceled) == (True, True)
    assert hub.watchers == 0


async def test_a_write_is_refused_and_on_record() -> None:
    service = make_service(Limits())
    pair = Pair(service.serve)
    stream = pair.open(headers_of("KV/Put"))
    await pair.flow()
    assert pair.trailers(stream)["grpc-status"] == str(StatusCode.UNIMPLEMENTED.value[0])
    assert [(one.key, one.reason) for one in service.peers.refusals] == [("/etcdserverpb.KV/Put", "unknown method")]
    assert service.peers.refused == {"unknown method": 1}


async def test_a_request_for_which_entries_are_decoded_counts_by_the_time_it_takes() -> None:
    service = make_service(Limits(peer_requests_per_s=0, peer_requests_burst=2))
    service.peers.charge(service.see("remote-c9"), 1.0)  # another one's
    pair = Pair(service.serve)
    first, second, third = ask(pair), ask(pair, keys_only=True), ask(pair)
    await pair.flow()
    assert [pair.trailers(stream)["grpc-status"] for stream in (first, second)] == ["0", "0"]
    assert pair.trailers(third)["grpc-message"] == "meshd: too many requests per second"
    assert service.see(pair.session.name).bucket.tokens < 0  # more than the two that it had are taken
