"""What a type cannot say of the daemon's settings is said all at once."""

from pathlib import Path

import pytest

from datapath.maglev import SIZES
from meshd.config import ConfigError, load
from meshd.daemon.checks import check
from meshd.daemon.config import DaemonConfig

GIVEN = {
    "cluster": "cluster1",
    "cluster_id": 1,
    "node": "n1",
    "local": "/l",
    "clustermesh": "/c",
}


def loaded(folder: Path, text: str) -> DaemonConfig:
    (folder / "daemon.yaml").write_text(text)
    return load(DaemonConfig, folder / "daemon.yaml", GIVEN | {"bpffs": str(folder), "cgroup": str(folder)})


def test_sizes_and_balancing_are_settings(tmp_path: Path) -> None:
    config = loaded(
        tmp_path, "load_balancing: maglev\nmaglev_size: 16381\nmap_sizes: {md_svc4: 1048576, md_be4: 524288}\n"
    )
    check(config)
    assert config.map_sizes["md_be4"] == 524288
    assert config.maglev_size == SIZES[-1]


def test_every_problem_is_named(tmp_path: Path) -> None:
    config = loaded(tmp_path, "maglev_size: 250\nmap_sizes: {md_none: 5, md_be4: 0}\n")
    with pytest.raises(ConfigError) as raised:
        check(config)
    text = str(raised.value)
    assert all(word in text for word in ("maglev_size", "250", "md_none", "md_be4"))


def test_an_unknown_balancing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="load_balancing"):
        loaded(tmp_path, "load_balancing: best\n")


def test_the_stack_needs_routes(tmp_path: Path) -> None:
    check(loaded(tmp_path, "through_stack: true\n"))
    with pytest.raises(ConfigError, match="through_stack: needs host_routes"):
        check(loaded(tmp_path, "through_stack: true\nhost_routes: false\n"))
