"""Markers that a machine may lack: a bare `pytest` skips them and says why; `make test` makes sure they can run."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

from tests.support.leftovers import sweep

# No test fails because the machine is busy.
settings.register_profile("meshd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("meshd")
# gRPC's handlers of fork() would otherwise run in the children that the testbed starts, and fail there.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Once, not in each of the processes that share the tests."""
    if os.geteuid() == 0 and not hasattr(session.config, "workerinput"):
        sweep()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = os.geteuid() == 0
    etcd = shutil.which("etcd") is not None
    for item in items:
        if "root" in item.keywords and not root:
            item.add_marker(pytest.mark.skip(reason="needs root: eBPF and network namespaces"))
        if "etcd" in item.keywords and not etcd:
            item.add_marker(pytest.mark.skip(reason="needs the etcd binary: run `make setup` as root"))
