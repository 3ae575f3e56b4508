"""From objects to the keys that etcd shall hold. Pure."""
