"""A plain etcd watch, the peer of `bench propagation`: prints the monotonic time and key of every put, nothing else.

python -m bench.etcd_watch 127.0.0.1:12379 cilium/state/ip/v1/default/
"""

import sys
import time
from collections.abc import Iterator
from threading import Event

import grpc

from wire.keys import interval
from wire.proto import kv_pb2, rpc_pb2, rpc_pb2_grpc


def watch(target: str, prefix: str) -> None:
    """Runs until the stream ends; "ready" is the first line."""
    start, end = interval(prefix)
    create = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=start, range_end=end))

    def requests() -> Iterator[rpc_pb2.WatchRequest]:
        yield create
        Event().wait()  # the stream stays open

    with grpc.insecure_channel(target) as channel:
        for response in rpc_pb2_grpc.WatchStub(channel).Watch(requests()):  # type: ignore[no-untyped-call]
            now = time.monotonic_ns()
            if response.created:
                print("ready", flush=True)
            for event in response.events:
                if event.type == kv_pb2.Event.PUT:
                    print(now, event.kv.key.decode(), flush=True)


if __name__ == "__main__":
    watch(sys.argv[1], sys.argv[2])
