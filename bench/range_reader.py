"""One reader for `bench proxy_list` and `sync`: lists a prefix in pinned pages and prints seconds, keys and own CPU as
JSON. With a kind, it decodes the records of cluster2 and keeps them by name.

Waits for a line on stdin before it begins, so that several begin together.

python -m bench.range_reader PREFIX PAGE TARGET [CERTIFICATE_FOLDER SERVER_NAME [KIND]]
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from bench.watch_readers import credentials
from identity.numbering import identity_range
from wire.codec import Record, Scope, decode, decode_ips
from wire.keys import Kind, interval
from wire.proto import rpc_pb2

_OPTIONS = [("grpc.max_receive_message_length", -1)]


Take = Callable[[Iterable[Any]], None]


def keeper(kind: Kind, prefix: str) -> Take:
    """Decodes what it is given and keeps it."""
    scope, start, records = Scope("cluster2", 2, identity_range(2)), len(prefix), dict[str, Record]()

    def take(kvs: Iterable[Any]) -> None:
        values = {kv.key[start:].decode(): kv.value for kv in kvs}
        if kind is Kind.IP and (ips := decode_ips(values, scope)):
            records.update(zip(values, ips, strict=True))
        else:
            records.update((name, decode(kind, name, value, scope)) for name, value in values.items())

    return take


def pages(channel: grpc.Channel, prefix: str, page: int, take: Take) -> int:
    """Lists all; how many keys there were. Raises ValueError if they are not in order or not all of one revision."""
    call: Any = channel.unary_unary(
        "/etcdserverpb.KV/Range",
        request_serializer=rpc_pb2.RangeRequest.SerializeToString,
        response_deserializer=rpc_pb2.RangeResponse.FromString,
    )
    key, end = interval(prefix)
    total, revision = 0, 0
    while True:
        answer = call(rpc_pb2.RangeRequest(key=key, range_end=end, limit=page, revision=revision))
        revision = revision or answer.header.revision
        if answer.kvs and answer.kvs[0].key < key:
            raise ValueError(f"{answer.kvs[0].key!r} comes after {key!r}")
        total += len(answer.kvs)
        take(answer.kvs)
        if not answer.more:
            return total
        key = answer.kvs[-1].key + b"\0"


def main(prefix: str, page: int, target: str, folder: str = "", name: str = "", kind: str = "") -> None:
    if folder:
        options = [*_OPTIONS, ("grpc.ssl_target_name_override", name)]
        channel = grpc.secure_channel(target, credentials(Path(folder)), options=options)
    else:
        channel = grpc.insecure_channel(target, options=_OPTIONS)
    with channel:
        grpc.channel_ready_future(channel).result(timeout=20)
        print("ready", flush=True)
        sys.stdin.readline()
        began, cpu = time.monotonic(), time.process_time()
        total = pages(channel, prefix, page, keeper(Kind(kind), prefix) if kind else lambda kvs: None)
        result = {"s": time.monotonic() - began, "keys": total, "cpu_s": time.process_time() - cpu}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
