"""The cluster's etcd: what it holds, what it shall hold, and who may write there."""
