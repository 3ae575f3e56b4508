"""Fixtures that all integration tests share."""

from tests.support.etcd import etcd as etcd
