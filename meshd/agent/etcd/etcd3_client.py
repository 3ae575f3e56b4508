"""The one importer of python-etcd3: leader lock and its lease.

The library's own stubs were generated for a protobuf of long ago and cannot be imported today; the generated stubs of
`wire.proto` describe the same messages and stand in for them. Its calls block, so they run in a thread; its watch
thread is not used, because nothing ends it.
"""

import sys
import uuid
from types import ModuleType

from wire.proto import kv_pb2, rpc_pb2, rpc_pb2_grpc


def _stand_in() -> ModuleType:
    module = ModuleType("etcd3.etcdrpc")
    for source in (kv_pb2, rpc_pb2, rpc_pb2_grpc):
        module.__dict__.update({name: value for name, value in vars(source).items() if not name.startswith("_")})
    return module


sys.modules.setdefault("etcd3.etcdrpc", _stand_in())

import etcd3  # noqa: E402 — after its stubs
import grpc  # noqa: E402

from meshd.etcd import EtcdSettings, split_url  # noqa: E402
from wire import keys  # noqa: E402

TIMEOUT_S = 3.0
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000)]


class LockUnavailable(Exception):
    """etcd does not answer about the lock."""


class LeaderLock:
    """The key `meshd/v1/leader`: who holds it may write. Blocking; every call raises LockUnavailable.

    `holder` is what others read there: who it is, for people.
    """

    def __init__(self, config: EtcdSettings, *, holder: str, ttl_s: int) -> None:
        self._config = config
        self._client = self._connect()
        self.token = f"{holder} {uuid.uuid4().hex}".encode()
        self._ttl_s = ttl_s
        self._lease: etcd3.Lease | None = None

    def _connect(self) -> etcd3.Etcd3Client:
        host, _, port = split_url(self._config.etcd)[1].rpartition(":")
        files = {
            "ca_cert": self._config.etcd_ca,
            "cert_cert": self._config.etcd_cert,
            "cert_key": self._config.etcd_key,
        }
        paths = {name: str(file) for name, file in files.items() if file}
        return etcd3.client(host=host, port=int(port), timeout=TIMEOUT_S, grpc_options=_OPTIONS, **paths)

    def reopen(self) -> None:
        """With the certificate of now; what is held stays held."""
        self._client.close()
        self._client = self._connect()

    def try_acquire(self) -> int | None:
        """Takes the lock if nobody else holds it; returns the revision at which it was taken, None if somebody does.

        What is ours already (etcd was away, we were not) stays ours.
        """
        try:
            return self._find() or self._take()
        except (etcd3.Etcd3Exception, grpc.RpcError) as error:
            raise LockUnavailable(_reason(error)) from error

    def _find(self) -> int | None:
        value, metadata = self._client.get(keys.LEADER)
        if value != self.token:
            return None
        self._lease = etcd3.Lease(metadata.lease_id, self._ttl_s, self._client)
        return int(metadata.create_revision) if self.refresh() else None

    def _take(self) -> int | None:
        lease = self._client.lease(self._ttl_s)
        operations = self._client.transactions
        taken, _ = self._client.transaction(
            compare=[operations.create(keys.LEADER) == 0],
            success=[operations.put(keys.LEADER, self.token, lease=lease)],
            failure=[],
        )
        if taken:
            return self._find()
        lease.revoke()
        return None

    def refresh(self) -> bool:
        """Keeps the lock for another time to live; False if it was lost."""
        try:
            return self._lease is not None and self._lease.refresh()[0].TTL > 0
        except (etcd3.Etcd3Exception, grpc.RpcError) as error:
            raise LockUnavailable(_reason(error)) from error

    def release(self) -> None:
        """Lets another one have it at once; nothing happens if it is not held."""
        lease, self._lease = self._lease, None
        if lease is not None:
            try:
                lease.revoke()
            except (etcd3.Etcd3Exception, grpc.RpcError) as error:
                raise LockUnavailable(_reason(error)) from error

    def close(self) -> None:
        self._client.close()


def _reason(error: Exception) -> str:
    details = getattr(error, "details", None)
    return str(details()) if callable(details) else type(error).__name__
