"""Everything that stands in etcd: keys, records and their codec, the etcd stubs. The only place that knows the wire.

The contract is Cilium ClusterMesh's etcd layout plus our own keys under `meshd/v1/`, which no remote may read.
A pure leaf: no input or output, no clock, nothing of ours imported.
"""
