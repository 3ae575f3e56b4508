"""Pieces of etcd's answers as bytes. Entries and events are encoded once and shared by all who read them.

Protobuf lets a message be put together from encoded fields; the tags below are those of wire/proto/rpc.proto.
"""

from etcdproxy.store import Store
from wire.proto import kv_pb2, rpc_pb2

_ENTRY = b"\x12"  # RangeResponse.kvs and Event.kv: both field 2
_PREVIOUS = b"\x1a"  # Event.prev_kv
_EVENT = b"\x5a"  # WatchResponse.events
_HEADER = b"\x0a"  # header of both
_IS_DELETE = b"\x08\x01"  # Event.type
_MORE = b"\x18\x01"
_COUNT = b"\x20"
_WATCH_ID = b"\x10"
_FRAGMENT = b"\x38\x01"
_UINT64 = (1 << 64) - 1


def encode_varint(number: int) -> bytes:
    """A non-negative number as protobuf writes it."""
    if number < len(_SMALL):
        return _SMALL[number]
    return _encode_varint(number)


def _encode_varint(number: int) -> bytes:
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


_SMALL = [_encode_varint(number) for number in range(0x1000)]  # lengths of nearly all entries


def encode_header(store: Store, revision: int) -> bytes:
    """The `header` field of an answer."""
    header = rpc_pb2.ResponseHeader(
        cluster_id=store.cluster_id, member_id=store.member_id, revision=revision, raft_term=store.raft_term
    ).SerializeToString()
    return _HEADER + encode_varint(len(header)) + header


def encode_entry(kv: kv_pb2.KeyValue) -> bytes:
    """A key and its value as a field that stands both in a range answer and in an event."""
    body = kv.SerializeToString()
    return b"".join((_ENTRY, encode_varint(len(body)), body))


def decode_entry(entry: bytes) -> kv_pb2.KeyValue:
    """The reverse of `encode_entry`."""
    return rpc_pb2.RangeResponse.FromString(entry).kvs[0]


def encode_put(entry: bytes, previous: bytes | None = None) -> bytes:
    """A put as an event of a watch answer."""
    if previous is None:  # nearly always
        return b"".join((_EVENT, encode_varint(len(entry)), entry))
    return _event(entry, previous)


def encode_delete(key: bytes, revision: int, previous: bytes | None = None) -> bytes:
    """A delete as an event of a watch answer."""
    return _event(_IS_DELETE + encode_entry(kv_pb2.KeyValue(key=key, mod_revision=revision)), previous)


def _event(body: bytes, previous: bytes | None) -> bytes:
    if previous is None:
        return b"".join((_EVENT, encode_varint(len(body)), body))
    tail = previous[len(_ENTRY) :]
    length = encode_varint(len(body) + len(_PREVIOUS) + len(tail))
    return b"".join((_EVENT, length, body, _PREVIOUS, tail))


def encode_range(header: bytes, entries: list[bytes], *, more: bool, count: int) -> bytes:
    """A whole RangeResponse."""
    return b"".join((header, *entries, _MORE if more else b"", _COUNT, encode_varint(count)))


def encode_watch(header: bytes, watch_id: int, events: bytes, *, fragment: bool = False) -> bytes:
    """A whole WatchResponse with encoded events."""
    identifier = encode_varint(watch_id & _UINT64)
    return b"".join((header, _WATCH_ID, identifier, _FRAGMENT if fragment else b"", events))
