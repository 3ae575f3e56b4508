"""Folders in bpffs: which names are allowed, and where an instance's things lie."""

from pathlib import Path

import pytest

from datapath.layout import LAYOUT_VERSION
from datapath.pins import Pins, PinsError


def test_dots_become_plus_signs_because_bpffs_allows_none() -> None:
    pins = Pins(Path("/sys/fs/bpf"), "cluster1.node1")
    assert pins.folder == Path(f"/sys/fs/bpf/meshd/cluster1+node1/v{LAYOUT_VERSION}")
    assert pins.programs("0123").path("from_pod") == pins.folder / "programs/0123/from_pod"


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a+b", "-a", "a b", "x" * 201])
def test_an_instance_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(PinsError, match="instance name"):
        Pins(Path("/sys/fs/bpf"), name)


def test_a_folder_outside_a_bpffs_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(PinsError, match="mount one with"):
        Pins(tmp_path, "x").create()
    assert list(tmp_path.iterdir()) == []
