"""Who a pod is, in whatever cluster it runs: numbers that carry the cluster, canonical labels, who owns an address."""
