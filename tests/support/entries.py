"""Builders of what stands in an etcd: entries and events, as the proxy's parts take them."""

from etcdproxy.encoding import encode_entry
from etcdproxy.history import Entry
from wire.proto import kv_pb2


def entry(key: bytes, value: bytes, revision: int, *, created: int = 0, version: int = 1) -> Entry:
    """An entry last put at `revision`, created then too unless said otherwise."""
    kv = kv_pb2.KeyValue(
        key=key, value=value, mod_revision=revision, create_revision=created or revision, version=version
    )
    return Entry(revision, encode_entry(kv))
