"""The agent: what one cluster says of itself, from its Kubernetes objects into its etcd. See README.md."""
