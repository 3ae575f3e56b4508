"""Changes ip records of a cluster at a steady rate until it is killed: other identities for the same addresses in turn.

python -m bench.etcd_writer 127.0.0.1:2379 CLUSTER_ID CHANGES_PER_SECOND

Prints how many it has made, every second.
"""

import sys
import time
from ipaddress import IPv4Address

import grpc

from wire.codec import encode
from wire.keys import Kind, record
from wire.proto import rpc_pb2, rpc_pb2_grpc
from wire.records import IP

ADDRESSES = 1_000
TICK_S = 0.002
PUTS = 120  # in one transaction, etcd's limit is 128


def put_of(cluster_id: int, number: int) -> rpc_pb2.RequestOp:
    """The change of that number."""
    address = str(IPv4Address(f"{10 * cluster_id}.9.0.0") + number % ADDRESSES)
    identity = (cluster_id << 16) + 256 + number // ADDRESSES % 1000
    value = encode(IP(ip=address, host_ip=f"172.18.{cluster_id}.11", id=identity))
    key = record(Kind.IP, f"cluster{cluster_id}", address)
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key.encode(), value=value))


def write(target: str, cluster_id: int, rate: float) -> None:
    """Never ends. What could not be written in time is written as soon as it can be."""
    with grpc.insecure_channel(target) as channel:
        kv = rpc_pb2_grpc.KVStub(channel)  # type: ignore[no-untyped-call]
        start, made, told = time.monotonic(), 0, 0.0
        while True:
            now = time.monotonic()
            due = min(int((now - start) * rate) - made, PUTS)
            if due > 0:
                kv.Txn(rpc_pb2.TxnRequest(success=[put_of(cluster_id, made + n) for n in range(due)]))
                made += due
            if now - told >= 1:
                told = now
                print(made, flush=True)
            if due < PUTS:
                time.sleep(TICK_S)


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
