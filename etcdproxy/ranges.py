"""Answers to Range and Status requests from memory, as etcd 3.4 gives them. Pure."""

from collections.abc import Callable

from etcdproxy.encoding import decode_entry, encode_entry, encode_range
from etcdproxy.history import Entry, History
from etcdproxy.policy import Interval
from etcdproxy.store import Store
from wire.proto import kv_pb2, rpc_pb2

_Request = rpc_pb2.RangeRequest

_SORT_BY: dict[int, Callable[[kv_pb2.KeyValue], bytes | int]] = {
    _Request.KEY: lambda kv: kv.key,
    _Request.VERSION: lambda kv: kv.version,
    _Request.CREATE: lambda kv: kv.create_revision,
    _Request.MOD: lambda kv: kv.mod_revision,
    _Request.VALUE: lambda kv: kv.value,
}


def answer_range(history: History, request: rpc_pb2.RangeRequest, header: bytes) -> bytes:
    """The encoded RangeResponse. The revision asked for is not ahead of the history. Raises Compacted."""
    interval = Interval.of_request(request.key, request.range_end)
    if request.count_only:
        count = history.read(interval, revision=request.revision, limit=1).total
        return encode_range(header, [], more=False, count=count)
    if _wants_selection(request):
        return _answer_selected(history, request, interval, header)
    page = history.read(interval, revision=request.revision, limit=max(request.limit, 0))
    fields = [entry.field for entry in page.entries]
    if request.keys_only:
        fields = [_without_value(field) for field in fields]
    return encode_range(header, fields, more=page.more, count=page.total)


def looks_into(request: rpc_pb2.RangeRequest) -> bool:
    """Whether entries are decoded to answer, which takes ten times as long as handing them on."""
    return not request.count_only and (request.keys_only or _wants_selection(request))


def answer_status(store: Store, revision: int, header: bytes) -> bytes:
    """The encoded StatusResponse, as far as a copy of an etcd can say. Its size is that of no database: 0."""
    return (
        header
        + rpc_pb2.StatusResponse(
            version=store.version, leader=store.member_id, raftTerm=store.raft_term, raftIndex=revision
        ).SerializeToString()
    )


def _wants_selection(request: rpc_pb2.RangeRequest) -> bool:
    """Whether the entries must be looked into: any order but ascending keys, or bounds on revisions."""
    by_key = request.sort_target == _Request.KEY and request.sort_order != _Request.DESCEND
    return _has_bounds(request) or not by_key


def _has_bounds(request: rpc_pb2.RangeRequest) -> bool:
    return any(
        (
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        )
    )


def _answer_selected(history: History, request: rpc_pb2.RangeRequest, interval: Interval, header: bytes) -> bytes:
    # etcd's ways: a sort without an order sorts (ascending) only what the limit has left over, one key more.
    cut_first = request.sort_order == _Request.NONE and not _has_bounds(request) and request.limit > 0
    page = history.read(interval, revision=request.revision, limit=request.limit + 1 if cut_first else 0)
    found = [kv for kv in map(_decode, page.entries) if _within_bounds(kv, request)]
    if request.sort_target in _SORT_BY:
        descending = request.sort_order == _Request.DESCEND
        found.sort(key=_SORT_BY[request.sort_target], reverse=descending)
    more = 0 < request.limit < len(found)
    if more:
        del found[request.limit :]
    fields = [encode_entry(kv) for kv in found]
    if request.keys_only:
        fields = [_without_value(field) for field in fields]
    return encode_range(header, fields, more=more, count=page.total)


def _within_bounds(kv: kv_pb2.KeyValue, request: rpc_pb2.RangeRequest) -> bool:
    return (
        kv.mod_revision >= request.min_mod_revision
        and (not request.max_mod_revision or kv.mod_revision <= request.max_mod_revision)
        and kv.create_revision >= request.min_create_revision
        and (not request.max_create_revision or kv.create_revision <= request.max_create_revision)
    )


def _decode(entry: Entry) -> kv_pb2.KeyValue:
    return decode_entry(entry.field)


def _without_value(field: bytes) -> bytes:
    kv = decode_entry(field)
    kv.ClearField("value")
    return encode_entry(kv)
