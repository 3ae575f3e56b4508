"""What kindnet does to packets: what leaves the cluster gets the node's address. Pure: makes nftables text."""

from meshd.testbed.plan import Cluster

TABLE = "kindnet"
COUNTER = "masqueraded"


def ruleset(cluster: Cluster) -> str:
    """nftables commands for each node of a cluster; applying them again changes nothing but keeps the counter."""
    rule = (
        f"ip saddr {cluster.pod_subnet} ip daddr != {cluster.pod_subnet} fib daddr type != local "
        f"counter name {COUNTER} masquerade"
    )
    return "\n".join(
        (
            f"add table ip {TABLE}",
            f"add counter ip {TABLE} {COUNTER}",
            f"add chain ip {TABLE} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}",
            f"flush chain ip {TABLE} postrouting",
            f"add rule ip {TABLE} postrouting {rule}",
        )
    )
