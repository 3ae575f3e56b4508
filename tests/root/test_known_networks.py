"""md_known in the kernel: what the programs make of the bits that user space sets."""

import mmap
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from datapath import bpf, entries
from datapath.batch import Batch
from datapath.entries import Entry
from datapath.known import SIZE
from datapath.loader import Loaded, LoadSettings, ensure_loaded
from datapath.maps import MapError, Maps
from tests.support.netns import machine
from tests.support.testrun import SHOT, UNSPEC, frame, run

pytestmark = pytest.mark.root
NODE = ip_address("172.18.2.11")
REMOTE = ("20.0.0.0/22", "20.9.0.0/24", "20.9.1.7/32", "fd00:20::/64", "fd00:21::7/128", "2001:db8:0:ffff::/64")
NAMES = {4: "10.0.0.1", 6: "fd00:10::1"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    with machine() as made:
        bpffs = made.bpffs(tmp_path_factory.mktemp("known") / "bpf")
        yield ensure_loaded(LoadSettings(bpffs, f"{made.tag}.known", made.cgroup("known")))


@pytest.fixture
def maps(loaded: Loaded) -> Iterator[Maps]:
    with Maps(loaded.folder) as opened:
        yield opened


def remote(text: str) -> Entry:
    network = ip_network(text)
    if network.num_addresses == 1:
        return entries.ipcache_entry(network[0], identity=9, tunnel=NODE, remote=True)
    return entries.cidr_entry(network, identity=0, tunnel=NODE, remote=True)


def judged(loaded: Loaded, destination: str) -> bool:
    """Whether from_pod looks at a packet to there: one from an address of nobody is dropped as spoofed."""
    source = NAMES[ip_address(destination).version]
    verdict, _ = run(loaded.programs.path("from_pod"), frame(source, destination, "UDP", 53), ifindex=1)
    assert verdict in (SHOT, UNSPEC)
    return verdict == SHOT


def test_what_was_written_is_seen_from_its_first_to_its_last_address(loaded: Loaded, maps: Maps) -> None:
    for text in REMOTE:
        network, entry = ip_network(text), remote(text)
        ends = str(network[0]), str(network[-1])
        assert not any(judged(loaded, end) for end in ends), text
        maps.upsert(entry.map, {entry.key: entry.value})
        assert all(judged(loaded, end) for end in ends), text
    assert not judged(loaded, "20.0.4.0")
    assert not judged(loaded, "2001:db8:0:fffe::1")


def test_a_bit_is_set_before_the_entry_and_stays_after_it(
    loaded: Loaded, maps: Maps, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, seen = remote("20.77.0.0/24"), list[bool]()
    update = Batch.update

    def watched(batch: Batch, start: int) -> tuple[int, int]:
        seen.append(marked())
        return update(batch, start)

    def marked() -> bool:
        bit = 20 << 16 | 77 << 8
        with bpf.opened(loaded.folder / "md_known") as fd, closing(mmap.mmap(fd, SIZE)) as memory:
            return bool(memory[bit // 8] >> bit % 8 & 1)

    monkeypatch.setattr(Batch, "update", watched)
    assert not marked()
    maps.upsert(entry.map, {entry.key: entry.value})
    assert seen == [True]
    maps.delete(entry.map, [entry.key])
    assert not judged(loaded, "20.77.0.1")
    assert marked()


def test_a_map_that_cannot_be_mapped_is_named(tmp_path: Path) -> None:
    entry = remote("20.0.0.0/24")
    with Maps(tmp_path) as nowhere, pytest.raises(MapError, match="md_known: open failed: No such file"):
        nowhere.upsert(entry.map, {entry.key: entry.value})
