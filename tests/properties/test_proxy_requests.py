"""Whatever a peer asks of the proxy, it never gets a key that its certificate does not let it read."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdproxy.encoding import encode_header
from etcdproxy.history import History
from etcdproxy.hub import Hub
from etcdproxy.policy import Interval, Policy, allows
from etcdproxy.ranges import answer_range
from etcdproxy.store import Store
from etcdproxy.stream import WatchStream
from tests.support.entries import entry
from wire.proto import rpc_pb2

_ALLOWED = [b"cilium/.heartbeat", b"cilium/state/a", b"cilium/cluster-config/c1", b"cilium/synced/c1/x"]
_SECRET = [b"cilium/.initlock/1", b"cilium/cache/a", b"cilium/cluster-config/c10", b"cilium/cluster-config/c2"]
_SECRET += [
    b"cilium/state",
    b"cilium/synced/c10/x",
    b"cilium/synced/c1",
    b"meshd/v1/identities/1",
    b"meshd/v1/generation",
]
_GRANTED = Policy("c1").granted("remote-c2")
STORE = Store(1, 2, 3)

_keys = st.one_of(
    st.sampled_from([*_ALLOWED, *_SECRET, b"", b"\0", b"cilium/", b"cilium0", b"cilium/state/", b"cilium/state0"]),
    st.builds(lambda key, tail: key + tail, st.sampled_from([*_ALLOWED, *_SECRET]), st.binary(max_size=2)),
    st.builds(lambda key, cut: key[:cut], st.sampled_from([*_ALLOWED, *_SECRET]), st.integers(0, 20)),
    st.binary(max_size=4),
)
_numbers = st.one_of(st.integers(-1, 40), st.integers(-(2**63), 2**63 - 1))


def make_history() -> History:
    history = History({key: entry(key, b"1", 5) for key in [*_ALLOWED, *_SECRET]}, 10)
    history.add(11, [(key, entry(key, b"2", 11)) for key in [*_ALLOWED, *_SECRET]])
    return history


class Gate:
    """As the service's: within the grant of a remote."""

    def refuse(self, interval: Interval) -> str:
        return "" if allows(_GRANTED, interval) else "no"

    def opened(self, interval: Interval) -> None:
        pass

    def closed(self, number: int) -> None:
        pass


@given(
    key=_keys,
    range_end=_keys,
    limit=_numbers,
    revision=st.integers(0, 11).filter(lambda revision: revision == 0 or revision >= 10),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    order=st.integers(0, 5),
    target=st.integers(0, 7),
    bounds=st.tuples(_numbers, _numbers, _numbers, _numbers),
)
@settings(max_examples=500)
def test_range(
    key: bytes,
    range_end: bytes,
    limit: int,
    revision: int,
    flags: tuple[bool, bool, bool],
    order: int,
    target: int,
    bounds: tuple[int, int, int, int],
) -> None:
    request = rpc_pb2.RangeRequest(key=key, range_end=range_end, limit=limit, revision=revision)
    request.serializable, request.keys_only, request.count_only = flags
    request.sort_order, request.sort_target = order, target  # type: ignore[assignment]
    request.min_mod_revision, request.max_mod_revision = bounds[:2]
    request.min_create_revision, request.max_create_revision = bounds[2:]
    if not allows(_GRANTED, Interval.of_request(key, range_end)):
        return
    answer = rpc_pb2.RangeResponse.FromString(answer_range(make_history(), request, encode_header(STORE, 11)))
    assert not {kv.key for kv in answer.kvs} & set(_SECRET)
    assert answer.count <= len(_ALLOWED)


@given(requests=st.lists(st.tuples(_keys, _keys, _numbers, _numbers, st.booleans()), max_size=8))
@settings(max_examples=300)
def test_watch(requests: list[tuple[bytes, bytes, int, int, bool]]) -> None:
    hub = Hub()
    hub.replace(make_history(), STORE, continues=False)
    stream = WatchStream(hub, Gate())
    for key, range_end, start, watch_id, flag in requests:
        create = rpc_pb2.WatchCreateRequest(key=key, range_end=range_end, start_revision=start, watch_id=watch_id)
        create.prev_kv = create.fragment = flag
        stream.handle(rpc_pb2.WatchRequest(create_request=create))
    hub.apply([(12, [(key, None) for key in [*_ALLOWED, *_SECRET]])])
    while (answer := stream.take()) is not None:
        for event in rpc_pb2.WatchResponse.FromString(answer).events:
            assert event.kv.key not in _SECRET
            assert event.prev_kv.key not in _SECRET


@given(body=st.binary(max_size=60))
@settings(max_examples=500)
def test_any_bytes_on_a_watch_stream(body: bytes) -> None:
    hub = Hub()
    hub.replace(make_history(), STORE, continues=False)
    stream = WatchStream(hub, Gate())
    try:
        request = rpc_pb2.WatchRequest.FromString(body)
    except DecodeError:
        return
    stream.handle(request)
    while stream.take() is not None:
        pass


@pytest.mark.parametrize("key", _SECRET)
def test_the_secret_keys_are_secret(key: bytes) -> None:
    assert not allows(_GRANTED, Interval.of_request(key, b""))
