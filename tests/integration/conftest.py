"""Fixtures that all integration tests share."""

from tests.support.etcd import etcd as etcd
from tests.support.proxy_fixtures import idle_proxy as idle_proxy
from tests.support.proxy_fixtures import proxy as proxy
from tests.support.proxy_fixtures import proxy_options as proxy_options
