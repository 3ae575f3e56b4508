import asyncio
import time

import pytest

from etcdproxy.limits import Bucket
from etcdproxy.peers import Peer
from etcdproxy.reads import Reads, area_of


def peer(name: str) -> Peer:
    return Peer(name, "remote", Bucket(1, time.monotonic()))


async def lines(caplog: pytest.LogCaptureFixture, count: int) -> list[dict[str, object]]:
    """All lines of the audit log, once there are so many."""
    async with asyncio.timeout(10):
        while True:
            if len(caplog.records) >= count:
                break
            await asyncio.sleep(0.01)
    names = ("peer", "keys", "ranges")
    return [{name: vars(one)[name] for name in names if name in vars(one)} for one in caplog.records]


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "meshd.audit")


async def test_what_is_new_is_a_line_at_once_and_the_rest_is_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    reads, two, three = Reads(window_s=0.05), peer("remote-c2"), peer("remote-c3")
    for number in range(1000):
        reads.note(two, b"cilium/state/ip/v1/default/%d" % number)
    reads.note(two, b"cilium/.heartbeat")
    reads.note(three, b"cilium/.heartbeat")
    assert await lines(caplog, 4) == [
        {"peer": "remote-c2", "keys": "cilium/state/ip/v1"},
        {"peer": "remote-c2", "keys": "cilium/.heartbeat"},
        {"peer": "remote-c3", "keys": "cilium/.heartbeat"},
        {"peer": "remote-c2", "ranges": 1001, "keys": "cilium/state/ip/v1:1000,cilium/.heartbeat:1"},
    ]
    caplog.clear()
    reads.note(three, b"cilium/.heartbeat")  # a new window
    assert await lines(caplog, 1) == [{"peer": "remote-c3", "keys": "cilium/.heartbeat"}]


async def test_whatever_is_asked_by_however_many_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    reads = Reads(window_s=0.05)
    for number in range(1000):
        reads.note(peer("remote-c2"), b"cilium/state/%d/v1/" % number)
    assert len(caplog.records) == 16
    for number in range(1000):
        reads.note(peer(f"remote-{number}"), b"cilium/.heartbeat")
    assert len(caplog.records) == 100
    seen = await lines(caplog, 102)
    assert seen[100]["ranges"] == 1000
    assert str(seen[100]["keys"]).endswith(",…:984")
    assert seen[101] == {"ranges": 801}


def test_areas_are_readable_and_short() -> None:
    assert area_of(b"cilium/state/ip/v1/default/10.0.0.1\0") == "cilium/state/ip/v1"
    assert area_of(b"cilium/.heartbeat") == "cilium/.heartbeat"
    assert len(area_of(b"\xff" * 10_000)) <= 800
