"""Fixtures of tests with one real proxy: `proxy` runs and has read its etcd, `idle_proxy` was not started yet.

A module that needs flags has a `proxy_options` of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.etcd import Etcd
from tests.support.proxy import Proxy


@pytest.fixture
def proxy_options() -> tuple[str, ...]:
    return ()


@pytest.fixture
def idle_proxy(tmp_path: Path, etcd: Etcd, proxy_options: tuple[str, ...]) -> Iterator[Proxy]:
    made = Proxy(tmp_path / "proxy", etcd.url, options=proxy_options)
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture
def proxy(idle_proxy: Proxy) -> Proxy:
    idle_proxy.start()
    idle_proxy.await_synced()
    return idle_proxy
