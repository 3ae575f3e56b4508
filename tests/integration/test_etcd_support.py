"""The fixture keeps its promises, so that the tests that stand on it may trust them."""

import pytest

from tests.support.etcd import Etcd

pytestmark = pytest.mark.etcd


def test_data_and_address_survive_a_kill(etcd: Etcd) -> None:
    url, revision = etcd.url, etcd.put("a", "1")
    etcd.kill()
    etcd.start()
    assert etcd.url == url
    assert etcd.get("a") == b"1"
    assert etcd.put_all({"a": "2", "b": "3"}) == revision + 1
    assert etcd.keys("a") == {"a": b"2"}
    assert etcd.etcdctl("get", "b", "--print-value-only").strip() == "3"


def test_wiped_it_is_another_etcd(etcd: Etcd) -> None:
    etcd.put("a", "1")
    etcd.stop()
    etcd.wipe()
    etcd.start()
    assert etcd.get("a") is None
