from hypothesis import given
from hypothesis import strategies as st

from etcdproxy.encoding import (
    decode_entry,
    encode_delete,
    encode_entry,
    encode_header,
    encode_put,
    encode_range,
    encode_varint,
    encode_watch,
)
from etcdproxy.store import Store
from wire.proto import kv_pb2, rpc_pb2

_kvs = st.builds(
    kv_pb2.KeyValue,
    key=st.binary(max_size=40),
    value=st.binary(max_size=300),
    mod_revision=st.integers(0, 2**63 - 1),
    create_revision=st.integers(0, 2**63 - 1),
    version=st.integers(0, 2**31),
    lease=st.integers(-(2**63), 2**63 - 1),
)
HEADER = encode_header(Store(2**64 - 1, 1, 3), 2**62)


@given(st.integers(0, 2**64 - 1))
def test_varint_is_protobufs(number: int) -> None:
    if number:
        assert b"\x08" + encode_varint(number) == rpc_pb2.ResponseHeader(cluster_id=number).SerializeToString()


@given(kvs=st.lists(_kvs, max_size=5), more=st.booleans(), count=st.integers(0, 2**40))
def test_range_is_what_protobuf_reads(kvs: list[kv_pb2.KeyValue], more: bool, count: int) -> None:
    answer = rpc_pb2.RangeResponse.FromString(
        encode_range(HEADER, [encode_entry(kv) for kv in kvs], more=more, count=count)
    )
    assert list(answer.kvs) == kvs
    assert (answer.more, answer.count, answer.header.revision) == (more, count, 2**62)


@given(kv=_kvs, previous=st.one_of(st.none(), _kvs), watch_id=st.integers(-1, 2**63 - 1), fragment=st.booleans())
def test_events_are_what_protobuf_reads(
    kv: kv_pb2.KeyValue, previous: kv_pb2.KeyValue | None, watch_id: int, fragment: bool
) -> None:
    before = encode_entry(previous) if previous is not None else None
    events = encode_put(encode_entry(kv), before) + encode_delete(kv.key, 9, before)
    answer = rpc_pb2.WatchResponse.FromString(encode_watch(HEADER, watch_id, events, fragment=fragment))
    put, delete = answer.events
    assert (put.type, put.kv) == (kv_pb2.Event.PUT, kv)
    assert (delete.type, delete.kv) == (kv_pb2.Event.DELETE, kv_pb2.KeyValue(key=kv.key, mod_revision=9))
    assert put.HasField("prev_kv") == delete.HasField("prev_kv") == (previous is not None)
    assert previous is None or put.prev_kv == delete.prev_kv == previous
    assert (answer.watch_id, answer.fragment) == (watch_id, fragment)


@given(_kvs)
def test_an_entry_is_read_back(kv: kv_pb2.KeyValue) -> None:
    assert decode_entry(encode_entry(kv)) == kv
