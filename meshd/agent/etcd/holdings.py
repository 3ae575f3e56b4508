"""What the agent finds in etcd when its turn to write begins: its keys, the leases they hang on, its numbers."""

from dataclasses import dataclass, field

from meshd.agent.etcd.connection import EtcdConnection
from meshd.agent.etcd.ledger import Digest, digest_of
from wire import keys
from wire.codec import BadRecord, Scope, decode
from wire.keys import Kind
from wire.local import Allocation


@dataclass(slots=True)
class Holdings:
    """Values and leases by key; of records, which are many, digests.

    `allocations`: number → labels. `odd`: records of ours that cannot be read, and why.
    """

    records: dict[str, tuple[Digest, int]] = field(default_factory=dict)
    beacon: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    configs: dict[str, bytes] = field(default_factory=dict)
    allocations: dict[int, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    generation: str = ""


async def list_holdings(etcd: EtcdConnection, prefixes: list[str], scope: Scope) -> Holdings:
    """Lists everything that is the agent's own, and the cluster-configs of all."""
    holdings = Holdings()
    leases: dict[int, int] = {}  # one number each, not one per record
    for prefix in prefixes:
        async for page in etcd.list_keys(prefix):
            for entry in page:
                lease = leases.setdefault(entry.lease, entry.lease)
                holdings.records[entry.key.decode()] = digest_of(entry.value), lease
    for prefix in (f"{keys.SYNCED_PREFIX}{scope.cluster}/", keys.LOCAL_SYNCED_PREFIX, keys.CLUSTER_CONFIG_PREFIX):
        async for page in etcd.list_keys(prefix):
            holdings.beacon |= {entry.key.decode(): (entry.value, entry.lease) for entry in page}
    holdings.configs = {
        key.removeprefix(keys.CLUSTER_CONFIG_PREFIX): value
        for key, (value, _) in holdings.beacon.items()
        if key.startswith(keys.CLUSTER_CONFIG_PREFIX)
    }
    await _list_allocations(etcd, scope, holdings)
    generation = await etcd.get(keys.GENERATION)
    holdings.generation = generation.value.decode(errors="replace") if generation else ""
    return holdings


async def _list_allocations(etcd: EtcdConnection, scope: Scope, holdings: Holdings) -> None:
    prefix = keys.prefix(Kind.ALLOCATION, scope.cluster)
    async for page in etcd.list_keys(prefix):
        for entry in page:
            name = entry.key.decode().removeprefix(prefix)
            try:
                allocation = decode(Kind.ALLOCATION, name, entry.value, scope)
            except BadRecord as error:
                holdings.odd[prefix + name] = str(error)
            else:
                if isinstance(allocation, Allocation):
                    holdings.allocations[int(name)] = allocation.labels
